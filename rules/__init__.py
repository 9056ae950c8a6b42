"""The selection guidance, the catalogue of base models and techniques that cannot be run, as TOML."""

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
    return _holding("rule")


@hookimpl
def register_techniques() -> list[Traversable]:
    """Every TOML file of this folder that holds techniques."""
    return _holding("technique")


def _holding(table: str) -> list[Traversable]:
    files = (file for file in importlib.resources.files(__name__).iterdir() if file.name.endswith(".toml"))
    return sorted((file for file in files if f"\n[[{table}]]" in file.read_text("utf-8")), key=lambda file: file.name)
