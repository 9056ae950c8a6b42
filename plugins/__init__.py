"""The built-in methods: one module, one method."""

if __name__ != "peftselect.plugins":
    raise ImportError("import peftselect.plugins, not plugins: this folder ships inside the package")
