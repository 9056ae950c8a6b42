"""Benchmark suites: a TOML file of differences from defaults, spread into runs, each run once and recorded.

``[defaults]`` holds arguments of ``peftselect.run`` by name, ``[defaults.set]`` settings of the method; ``[grid]``
holds lists, and every combination of them is one run; ``[[run]]`` tables add single runs with arguments of their own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, PeftSelectError, UnknownNameError
from peftselect.resources import shipped

if TYPE_CHECKING:
    from peftselect.record import RunRecord

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


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "recorded before", "ok" or another status, with one line where it failed."""

    run: SuiteRun
    status: str
    record: RunRecord | None = None
    because: str = ""


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
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"suite {name}: grid.{key} is not a list", "write the values in brackets")
    singles = document.get("run", [{}])
    for single in singles:
        for combination in itertools.product(*grid.values()):
            arguments = {**defaults, **dict(zip(grid, combination, strict=True)), **single}
            arguments["set"] = {**defaults.get("set", {}), **single.get("set", {})}
            yield SuiteRun(name, arguments)


def run_suite(
    suite: Suite,
    run: Callable[..., RunRecord],
    output: Path,
    *,
    report: Callable[[int, int, Outcome], None] = lambda *_: None,
) -> list[Outcome]:
    """Run what has not been run: each into ``output``/KEY, where a finished ``run.json`` says that it is done.

    A run that fails is reported and the next one goes on; running the suite again tries it anew.
    """
    outcomes = []
    for number, item in enumerate(suite.runs, 1):
        outcome = _run_one(item, run, output / item.key)
        report(number, len(suite.runs), outcome)
        outcomes.append(outcome)
    return outcomes


def _run_one(item: SuiteRun, run: Callable[..., RunRecord], folder: Path) -> Outcome:
    from peftselect.record import RunRecord

    finished = folder / "run.json"
    if finished.is_file():
        record = RunRecord.from_json(json.loads(finished.read_text(encoding="utf-8")), str(finished))
        return Outcome(item, "recorded before", record)
    try:
        record = run(**as_run_arguments(item.arguments), output=folder, overwrite=True)
    except PeftSelectError as error:
        return Outcome(item, "failed", because=error.message)
    return Outcome(item, record.status, record)


def as_run_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A suite's words as the arguments of ``peftselect.run`` (``eval`` and ``set`` are Python's own words)."""
    renamed = {"eval": "evaluation", "set": "settings"}
    return {renamed.get(name, name): value for name, value in arguments.items()}


def gains(outcomes: Iterable[Outcome]) -> list[tuple[SuiteRun, dict[str, tuple[float, float]]]]:
    """Scores of the base and of the tuned model by metric, for each run that has both."""
    found = []
    for outcome in outcomes:
        record = outcome.record
        if record is not None and record.scores and record.baseline:
            pairs = {
                name: (record.baseline[name].value, score.value)
                for name, score in record.scores.items()
                if name in record.baseline
            }
            found.append((outcome.run, pairs))
    return found
