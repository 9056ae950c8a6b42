"""The selection guidance and the catalogue of base models, as TOML."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from peftselect import hookimpl

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

if __name__ != "peftselect.rules":
    raise ImportError("import peftselect.rules, not rules: this folder ships inside the package")


@hookimpl
def register_rules() -> list[Traversable]:
    """Every TOML file of this folder that holds rules (the catalogue and the vocabulary hold none)."""
    files = (file for file in importlib.resources.files(__name__).iterdir() if file.name.endswith(".toml"))
    return sorted((file for file in files if "[[rule]]" in file.read_text("utf-8")), key=lambda file: file.name)
