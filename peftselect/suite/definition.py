"""What a suite is: a TOML file of differences from defaults, spread into runs.

``[defaults]`` holds arguments of ``peftselect.run`` by name, ``[defaults.set]`` settings of the method; ``[grid]`` (and
``[grid.set]``, for settings) holds lists, and every combination of them is one run; ``[[run]]`` tables add single runs
with arguments of their own, each of them combined with the grid.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnknownNameError
from peftselect.resources import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TABLES = {"about", "defaults", "grid", "run"}


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite: the arguments of ``peftselect.run``. Equal arguments have equal keys."""

    suite: str
    arguments: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Ten hex digits by which a finished run is found again."""
        text = json.dumps(self.arguments, sort_keys=True, default=str)
        return hashlib.sha256(f"{self.suite} {text}".encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Suite:
    """A suite's name, what it is about, and its runs in order."""

    name: str
    about: str
    runs: tuple[SuiteRun, ...]


def shipped_suites() -> dict[str, str]:
    """Names of the suites that ship, each with what it is about."""
    folder = shipped("benchmarks", "suites")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): str(tomllib.loads(file.read_text())["about"]) for file in files}


def load_suite(reference: str, replacements: Mapping[str, Any] | None = None) -> Suite:
    """Read a suite by name (of those that ship) or by path; ``replacements`` override its defaults and its grid.

    Raises InputError for a file that cannot be read or has parts which no suite has.
    """
    file = Path(reference)
    if file.suffix == ".toml" or file.exists():
        name, text = file.stem, _read(file)
    elif reference in shipped_suites():
        name, text = reference, shipped("benchmarks", "suites", f"{reference}.toml").read_text()
    else:
        raise UnknownNameError("suite", reference, sorted(shipped_suites()))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{reference} is not TOML ({error})", "see benchmarks/README.md") from error
    if unknown := set(document) - _TABLES:
        raise InputError(f"{reference} has {sorted(unknown)[0]!r}, which no suite has", f"known: {sorted(_TABLES)}")
    return Suite(name, str(document.get("about", "")), tuple(_spread(name, document, replacements or {})))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read", "give a suite's name or a TOML file") from error


def _spread(name: str, document: Mapping[str, Any], replacements: Mapping[str, Any]) -> Iterator[SuiteRun]:
    defaults = {**document.get("defaults", {}), **replacements}
    grid = {key: values for key, values in document.get("grid", {}).items() if key not in replacements}
    settings = grid.pop("set", {}) if isinstance(grid.get("set", {}), dict) else {}
    for key, values in (*grid.items(), *((f"set.{key}", values) for key, values in settings.items())):
        if not isinstance(values, list) or not values:
            raise InputError(f"suite {name}: grid.{key} is not a list", "write the values in brackets")
    for single in document.get("run", [{}]):
        for combination in itertools.product(*grid.values()):
            for values in itertools.product(*settings.values()):
                arguments = {**defaults, **dict(zip(grid, combination, strict=True)), **single}
                chosen = dict(zip(settings, values, strict=True))
                arguments["set"] = {**defaults.get("set", {}), **chosen, **single.get("set", {})}
                yield SuiteRun(name, arguments)


def as_run_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A suite's words as the arguments of ``peftselect.run`` (``eval`` and ``set`` are Python's own words)."""
    renamed = {"eval": "evaluation", "set": "settings"}
    return {renamed.get(name, name): value for name, value in arguments.items()}


def differences(suite: Suite) -> dict[str, dict[str, Any]]:
    """By key what tells each run from the others: arguments that not all of them share, settings of the method too."""
    flat = {item.key: {**item.arguments, **item.arguments["set"], "set": None} for item in suite.runs}
    names = dict.fromkeys(name for arguments in flat.values() for name in arguments)
    varying = [name for name in names if len({json.dumps(a.get(name), default=str) for a in flat.values()}) > 1]
    return {key: {name: found[name] for name in varying if name in found} for key, found in flat.items()}
