"""What the literature names beside methods that can be run: each entry says why it cannot, and what to use instead."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import PluginError
from peftselect.method import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.resources.abc import Traversable

_REQUIRED = ("name", "title", "family", "summary", "because")


@dataclass(frozen=True)
class Technique:
    """A name of the literature that is no method to be run by itself.

    ``because`` is a half sentence; ``instead`` names methods, stages or baselines that do the nearest thing that can
    be run; ``thesis`` holds sections ("2.3") and tables ("T2.8").
    """

    name: str
    title: str
    family: str
    summary: str
    because: str
    aliases: tuple[str, ...] = ()
    thesis: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    kind: Literal["reference"] = "reference"

    @property
    def hint(self) -> str:
        """What to do in place of running it."""
        return f"use instead: {', '.join(self.instead)}" if self.instead else f"`peftselect methods {self.name}`"


def read_techniques(files: Iterable[Traversable]) -> dict[str, Technique]:
    """The ``[[technique]]`` tables of ``files`` by name; PluginError names the file and what is wrong in it."""
    found: dict[str, Technique] = {}
    for file in files:
        for number, table in enumerate(tomllib.loads(file.read_text("utf-8")).get("technique", ()), 1):
            item = _technique(table, f"{file.name}, technique {number}")
            if item.name in found:
                raise PluginError(f"technique {item.name!r} is registered twice", "rename one of them")
            found[item.name] = item
    return dict(sorted(found.items()))


def _technique(table: dict[str, Any], where: str) -> Technique:
    if missing := [name for name in _REQUIRED if not table.get(name)]:
        raise PluginError(f"{where} lacks {', '.join(missing)}", "see rules/techniques.toml")
    lists = {name: tuple(table.get(name, ())) for name in ("aliases", "thesis", "instead")}
    try:
        papers = tuple(Reference(**paper) for paper in table.get("references", ()))
        return Technique(**{**table, **lists, "references": papers})
    except TypeError as error:
        raise PluginError(f"{where}: {error}", "see rules/techniques.toml") from error
