"""Run records from elsewhere: long tables, the PEFT project's results, records and finished runs.

One importer reads them all, for ``peftselect results import``, ``predictor evaluate --on`` and the scripts in
``benchmarks/`` alike. Files are read first and stored when nothing is wrong with any of them.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import DataError, InputError
from peftselect.importing import checks, peft_project, tables
from peftselect.record import RunRecord
from peftselect.results import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peftselect.results import ResultsStore

#: the record in the folder of a finished run
RUN_FILE = "run.json"
#: the file types that are looked at in a folder
TYPES = (".csv", ".json", ".jsonl")
_HINT = "give a long table (CSV), results of the PEFT project (JSON or CSV), records (.jsonl), a run.json, or a folder"


@dataclass
class Found:
    """What was read: records, each with the place it is from, what is wrong, and files that are about something else.

    ``foreign`` are methods and metrics of the PEFT project's that nothing here knows; they are taken all the same.
    """

    records: list[tuple[RunRecord, str]] = field(default_factory=list)
    broken: list[DataError] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Imported:
    """Ids of the records that are new in the store, and how many were known already (there, or shipped)."""

    new: tuple[str, ...]
    known: int


def read_table(file: Path) -> list[RunRecord]:
    """A long table's records for judging on: repeated rows are repeated runs, names that nobody knows may stay."""
    return tables.read_table(file, names=checks.registered, repeats_are_runs=True)


def read(place: Path, *, allow_unknown: bool = False) -> Found:
    """Read a file, the folder of a run, or every file that holds records below a folder.

    InputError where there is nothing to read; what is wrong inside a file is collected in ``broken``, one clear error a
    file or line. A method or metric that nobody knows is wrong unless ``allow_unknown``.
    """
    found = Found()
    if place.is_dir():
        files = list(_files(place))
        if not files:
            raise InputError(f"{place}: there is nothing to import", _HINT)
    elif place.is_file():
        files = [place]
    else:
        raise InputError(f"{place}: there is no such file or folder", _HINT)
    for file in files:
        try:
            _read_file(file, found)
        except InputError as error:
            found.broken.append(DataError(error.message, error.hint))
    if found.aside and not found.records and not found.broken:
        raise InputError(f"{found.aside[0]}: there are no results in it", _HINT)
    if not allow_unknown:
        _refuse_unknown(found)
    return found


def _files(folder: Path) -> Iterable[Path]:
    """Files to look at, in order; of the folder of a run its record alone."""
    for top, folders, names in os.walk(folder):
        if RUN_FILE in names:
            folders.clear()
            yield Path(top, RUN_FILE)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(top, name) for name in sorted(names) if name.endswith(TYPES) and not name.startswith("."))


def _read_file(file: Path, found: Found) -> None:
    if file.suffix == ".csv":
        _read_csv(file, found)
    elif file.suffix == ".jsonl":
        _read_lines(file, found)
    else:
        _read_json(file, found)


def _read_csv(file: Path, found: Found) -> None:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = set(next(csv.reader(stream), ()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error})", _HINT) from error
    if header >= set(peft_project.COLUMNS):
        found.records += [(record, str(file)) for record in peft_project.read_summary(file)]
    elif {"metric", "value"} <= header:
        read_here = tables.read_table(file, names=checks.registered, broken=found.broken)
        found.records += [(record, str(file)) for record in read_here]
    else:
        found.aside.append(str(file))


def _read_lines(file: Path, found: Found) -> None:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})", _HINT) from error
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        try:
            if line.strip():
                found.records.append((parse(line, where, check_id=True), where))
        except DataError as error:
            found.broken.append(error)


def _read_json(file: Path, found: Found) -> None:
    try:
        document: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})", _HINT) from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}", "the file may be cut off") from error
    if not isinstance(document, dict):
        found.aside.append(str(file))
    elif peft_project.is_document(document):
        record = peft_project.from_document(document, str(file))
        if unknown := checks.names().unknown(record):
            found.foreign.add(unknown.message)
        found.records.append((record, str(file)))
    elif file.name == RUN_FILE or {"source", "candidate"} & document.keys():
        found.records.append((RunRecord.from_json(document, str(file), check_id=True), str(file)))
    else:
        found.aside.append(str(file))


def _refuse_unknown(found: Found) -> None:
    """Move records with names that nobody knows to what is wrong; the PEFT project's names are taken."""
    kept = []
    for record, where in found.records:
        unknown = None if record.source.startswith(peft_project.PROJECT) else checks.names().unknown(record)
        if unknown is None:
            kept.append((record, where))
        else:
            hint = f"{unknown.hint.rstrip('.')}; --allow-unknown takes it as it is"
            found.broken.append(DataError(f"{where}: {unknown.message}", hint))
    found.records = kept


def store_all(
    found: Found, store: ResultsStore, shipped: Iterable[RunRecord], *, skip_broken: bool = False
) -> Imported:
    """Append what was read and is not there yet, once nothing is wrong with any of it.

    DataError is the first thing that is wrong (with how many there are in all), a record that contradicts one of the
    same run among it; nothing has been stored then. With ``skip_broken`` such records alone are left out.
    """
    runs = checks.Runs([*shipped, *store.read(broken=[])])
    new: list[RunRecord] = []
    known = 0
    for record, where in found.records:
        if record.id in runs.ids:
            known += 1
            continue
        try:
            runs.check(record, where)
        except DataError as error:
            found.broken.append(error)
            continue
        runs.add(record, where)
        new.append(record)
    if found.broken and not skip_broken:
        first, more = found.broken[0], len(found.broken) - 1
        also = f" (and {more} more such line{'s' * (more > 1)})" if more else ""
        raise DataError(first.message + also, f"{first.hint}; nothing was imported, --skip-broken imports the rest")
    return Imported(tuple(store.append(record) for record in new), known)
