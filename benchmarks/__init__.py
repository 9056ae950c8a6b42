"""Benchmark suites and what was measured."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from peftselect import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

if __name__ != "peftselect.benchmarks":
    raise ImportError("import peftselect.benchmarks, not benchmarks: this folder ships inside the package")


@hookimpl
def register_records() -> list[Traversable]:
    """Every JSON-lines file under ``results``."""
    return list(_json_lines(importlib.resources.files(__name__).joinpath("results")))


def _json_lines(folder: Traversable) -> Iterator[Traversable]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name) if folder.is_dir() else ():
        if item.is_dir():
            yield from _json_lines(item)
        elif item.name.endswith(".jsonl"):
            yield item
