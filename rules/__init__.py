"""The selection guidance and the catalogue of base models, as TOML."""

if __name__ != "peftselect.rules":
    raise ImportError("import peftselect.rules, not rules: this folder ships inside the package")
