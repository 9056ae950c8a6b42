"""Which of a file's columns is which of the task's, and whether a cell holds what its column should."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftselect import audio
from peftselect.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.task import Column, Task

_LISTS = {"tokens", "tags", "choices", "references"}
_WANTED = {
    "text": "text",
    "label": "a label (text or a whole number)",
    "number": "a number",
    "tokens": "a list of words",
    "tags": "a list of tags by name (B-PER, I-PER, O); a folder that datasets wrote carries the names of numbers",
    "answers": 'answers: {"text": ["..."], "answer_start": [0]}',
    "choices": "a list of at least two texts",
    "index": "a whole number from 0",
    "references": "a list of texts",
    "labels": "a list of labels (in CSV: between commas), empty where none fits",
    "audio": "the path of a sound file",
    "messages": 'a list of turns: [{"role": "user", "content": "..."}, ...]',
}


def choose_columns(where: str, task: Task, found: Sequence[str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Our column names mapped to the file's: what the user said first, then our name, then the usual aliases."""
    lowered = {name.lower(): name for name in found}
    known = {column.name for column in task.columns}
    for ours, named in overrides.items():
        if ours not in known:
            raise DataError(f"{task.name} has no column {ours!r}", f"its columns: {', '.join(sorted(known))}")
        if named not in found:
            raise DataError(f"{where} has no column {named!r}", f"it has: {', '.join(found)}")
    chosen = dict(overrides)
    for column in task.columns:
        if column.name in chosen:
            continue
        names = (column.name, *column.aliases)
        theirs = next(
            (lowered[name] for name in names if name in lowered and lowered[name] not in chosen.values()), None
        )
        if theirs is not None:
            chosen[column.name] = theirs
        elif column.required:
            raise DataError(
                f"{where} has no column for the {column.name} of {task.name} (it has: {', '.join(found)})",
                f"name it: --columns {column.name}=YOURS; known names: {', '.join(names)}",
            )
    return chosen


def check_cell(where: str, theirs: str, column: Column, value: Any) -> Any:
    """A cell's value in the column's form, or DataError with file, line and column."""
    if column.kind == "labels" and (value is None or value == [] or value == ""):
        return []
    if value is None or (isinstance(value, str) and not value.strip()) or value in ([], {}):
        raise DataError(f"{where}: column {theirs!r} is empty", "fill it or leave the row out")
    if column.kind in _LISTS and isinstance(value, str):
        value = _from_text(value)
    read = _READERS[column.kind](value)
    if read is None:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        raise DataError(f"{where}: column {theirs!r} is {shown}", f"it should hold {_WANTED[column.kind]}")
    return read


def read_cell(where: str, theirs: str, column: Column, value: Any, folder: Path) -> Any:
    """A cell in the column's form, sound found from ``folder``; DataError with file, line and column."""
    cell = check_cell(where, theirs, column, value)
    return audio.check_file(where, theirs, folder / cell) if column.kind == "audio" else cell


def _from_text(value: str) -> Any:
    """Lists in CSV cells are written as JSON, or as words between blanks."""
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return None
    return value.split()


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _label(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() if isinstance(value, str | int | bool) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _index(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and number >= 0 else None


def _texts(value: Any) -> list[str] | None:
    if not isinstance(value, list | tuple):
        return None
    read = [_text(item) for item in value]
    return None if None in read else [item for item in read if item is not None]


def _tags(value: Any) -> list[str] | None:
    """Tags by name: entities cannot be told from numbers, of which nobody knows which one continues another."""
    read = _texts(value)
    return None if read is None or any(_is_number(tag) for tag in read) else read


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _choices(value: Any) -> list[str] | None:
    read = _texts(value.get("text") if isinstance(value, dict) else value)
    return read if read and len(read) >= 2 else None


def _answers(value: Any) -> dict[str, list[Any]] | None:
    """Answers of extractive QA as lists; SQuAD 2's unanswerable questions have empty ones."""
    if isinstance(value, str):
        value = _from_text(value) if value.lstrip().startswith("[") else {"text": value}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {key: [item.get(key) for item in value] for key in ("text", "answer_start")}
    if not isinstance(value, dict) or "text" not in value:
        return None
    texts = [value["text"]] if isinstance(value["text"], str) else list(value["text"] or [])
    starts = value.get("answer_start", [])
    starts = [starts] if isinstance(starts, int) else list(starts or [])
    if any(not isinstance(text, str) for text in texts) or any(not isinstance(start, int) for start in starts):
        return None
    return {"text": texts, "answer_start": starts}


def _labels(value: Any) -> list[str] | None:
    """Distinct labels, in their order."""
    if isinstance(value, str):
        value = _from_text(value) if value.lstrip().startswith("[") else re.split(r"[,;|]", value)
    read = [_label(item) for item in value] if isinstance(value, list | tuple) else [None]
    return None if None in read else [item for item in dict.fromkeys(read) if item]


def _messages(value: Any) -> list[dict[str, str]] | None:
    """Turns with role and content; ShareGPT's ``from`` and ``value`` are read too."""
    if isinstance(value, str):
        value = _from_text(value)
    turns = value if isinstance(value, list) else []
    read = [
        {"role": _ROLES.get(str(role), role), "content": content}
        for turn in turns
        if isinstance(turn, dict)
        and isinstance(role := turn.get("role", turn.get("from")), str)
        and isinstance(content := turn.get("content", turn.get("value")), str)
    ]
    return read if turns and len(read) == len(turns) else None


def _audio(value: Any) -> str | None:
    """A path; ``datasets`` writes {"path": ..., "bytes": ...}."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else None


_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_READERS: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "label": _label,
    "number": _number,
    "tokens": _texts,
    "tags": _tags,
    "answers": _answers,
    "choices": _choices,
    "index": _index,
    "references": _texts,
    "labels": _labels,
    "messages": _messages,
    "audio": _audio,
}
