"""The results store: shipped records, and the user's own in a folder or at any fsspec URL."""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING, Any

from peftselect.errors import DataError, InputError
from peftselect.record import RunRecord
from peftselect.resources import user_data_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from peftselect.plugin_manager import PluginHost

STORE_VARIABLE = "PEFTSELECT_RESULTS"
#: where a record keeps what people filter by
_FILTERS = {
    "task": ("problem", "task"),
    "family": ("problem", "family"),
    "dataset": ("problem", "dataset"),
    "model": ("problem", "model"),
    "method": ("candidate", "method"),
}


class ResultsStore:
    """A folder of JSON files, one a record, named by the record's id.

    A record is written under a temporary name and then moved, so that a reader never sees half of one, and any number
    of processes and machines can append without a lock. Appending the same record again changes nothing.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)

    def append(self, record: RunRecord) -> str:
        """Store a record and return its id.

        InputError where the store cannot be written; DataError where another record has the name already (it was
        changed by hand), which stays as it is. Half a file of that name, as a crash may leave it, is replaced.
        """
        file_system, folder = self._open()
        target = f"{folder}/{record.id}.json"
        temporary = f"{folder}/.{record.id}-{uuid.uuid4().hex}.tmp"
        try:
            text = json.dumps(record.to_json(), indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the record holds a value that JSON has not: {error}", "leave out what is not known or not finite"
            ) from error
        try:
            file_system.makedirs(folder, exist_ok=True)
            if _holds(file_system, target, record):
                return record.id
            _write(file_system, temporary, text.encode())
            _move(file_system, temporary, target)
        except OSError as error:
            raise InputError(
                f"{self.url}: records cannot be written there ({error.strerror or error})",
                f"set {STORE_VARIABLE} to a folder or URL that can be written",
            ) from error
        return record.id

    def read(self, broken: list[str] | None = None) -> list[RunRecord]:
        """Every record, sorted by file name.

        A file that is no record raises DataError, or, where a list ``broken`` is given, adds one line to it.
        """
        if "://" not in self.url and not os.path.isdir(self.url):
            return []
        file_system, folder = self._open()
        names = file_system.ls(folder, detail=False) if file_system.exists(folder) else []
        records = []
        for name in sorted(str(item) for item in names if str(item).endswith(".json")):
            try:
                records.append(parse(file_system.cat_file(name), name))
            except FileNotFoundError:  # another process took it away since the folder was listed
                continue
            except DataError as error:
                if broken is None:
                    raise
                broken.append(error.message)
        return records

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            file_system, folder = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(f"{self.url}: {error}", "give a folder, or a URL that fsspec can open") from error
        return file_system, folder.rstrip("/")


def _is_local(file_system: Any) -> bool:
    return file_system.protocol == "file" or "file" in file_system.protocol


def _holds(file_system: Any, target: str, record: RunRecord) -> bool:
    """Whether the record is there already; DataError where its name is another's."""
    if not file_system.exists(target):
        return False
    try:
        there = parse(file_system.cat_file(target), target)
    except (DataError, FileNotFoundError):
        return False
    if there.id != record.id:
        raise DataError(
            f"{target}: it holds record {there.id} under the name of {record.id}", "move it out of the store"
        )
    return True


def _write(file_system: Any, path: str, content: bytes) -> None:
    """Write a file that no reader looks at yet; a local one is on the disk before it gets its name."""
    if not _is_local(file_system):
        file_system.pipe_file(path, content)
        return
    with open(path, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _move(file_system: Any, source: str, target: str) -> None:
    if _is_local(file_system):
        # fsspec's own move copies where the target exists, which readers could see half done
        os.replace(source, target)
    else:
        file_system.mv(source, target)


def user_store() -> ResultsStore:
    """The user's own records: ``$PEFTSELECT_RESULTS`` (a folder or URL), else a folder of the user's data."""
    return ResultsStore(os.environ.get(STORE_VARIABLE) or user_data_folder() / "results")


def shipped_records(host: PluginHost) -> list[RunRecord]:
    """The records of every JSON-lines file that built-ins and plugins register."""
    return [record for file in host.record_files() for record in read_json_lines(file)]


def read_json_lines(file: Traversable | Path) -> Iterator[RunRecord]:
    """The records of one file; DataError names the file and the line."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file.name}: {error.strerror or error}", "give a JSON-lines file of records") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield parse(line, f"{file.name}, line {number}")


def write_json_lines(records: Iterable[RunRecord], file: Path) -> None:
    """One record a line; InputError where the file cannot be written. Readers see all of it or nothing."""
    lines = (json.dumps(item.to_json(), ensure_ascii=False, sort_keys=True) + "\n" for item in records)
    write_whole(file, "".join(lines).encode())


def write_whole(file: Path, content: bytes) -> None:
    """Write a file under a temporary name and move it into place; InputError where that cannot be done."""
    temporary = file.with_name(f".{file.name}-{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{file} cannot be written ({error.strerror or error})", "give another file") from error


def select(records: Iterable[RunRecord], *, metric: str = "", source: str = "", **wanted: str) -> list[RunRecord]:
    """The records that match: ``task``, ``family``, ``dataset``, ``model``, ``method`` exactly (without regard to
    case), ``metric`` among the scores, ``source`` as a part of the record's source. Empty means any."""
    exact = {_FILTERS[name]: value.lower() for name, value in wanted.items() if value}
    return [
        record
        for record in records
        if (not metric or metric in record.scores)
        and source.lower() in record.source.lower()
        and all(str(getattr(record, part).get(key, "")).lower() == value for (part, key), value in exact.items())
    ]


def find(records: Iterable[RunRecord], record_id: str) -> RunRecord:
    """The one record whose id starts with ``record_id``; InputError otherwise."""
    found = {record.id: record for record in records if record.id.startswith(record_id.lower())}
    if len(found) != 1:
        what = f"{len(found)} records have ids that start with" if found else "there is no record"
        raise InputError(f"{what} {record_id!r}", "`peftselect results` lists them")
    return next(iter(found.values()))


def parse(raw: bytes, where: str, *, check_id: bool = False) -> RunRecord:
    """One record from its JSON; DataError names ``where``, also where the id is another content's (``check_id``)."""
    try:
        document = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not JSON: {error}", "a record is one JSON object") from error
    if not isinstance(document, dict):
        raise DataError(f"{where}: not a record", "a record is one JSON object")
    return RunRecord.from_json(document, where, check_id=check_id)
