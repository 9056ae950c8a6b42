"""Rows to be predicted: what a user has before there is an answer."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.columns import choose_columns, read_cell
from peftselect.data import raw_rows
from peftselect.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftselect.task import Column, Row, Task


class _Questions:
    """A task's columns without those that hold answers, for :func:`choose_columns`."""

    def __init__(self, task: Task) -> None:
        self.name = task.name
        self.columns = tuple(column for column in task.columns if not column.is_answer)


def rows_from_file(path: str | Path, task: Task, columns: Mapping[str, str], limit: int | None = None) -> list[Row]:
    """The rows of a file, answers left aside; DataError names file, line and column."""
    numbered = [(f"{path}:{number}", document) for number, document in islice(raw_rows(path, "test"), limit)]
    if not numbered:
        raise DataError(f"{path} holds no rows", "is it the right file?")
    return make_rows(numbered, task, columns, str(path), Path(path).parent)


def rows_from_texts(texts: Sequence[str], task: Task) -> list[Row]:
    """A row for each text, where the task's input is a single one (``a<TAB>b`` where it is two)."""
    wanted = [column.name for column in _Questions(task).columns if column.required]
    wanted = wanted or [next(column.name for column in _Questions(task).columns if column.kind == "text")]
    documents = []
    for number, text in enumerate(texts, 1):
        parts = text.split("\t") if len(wanted) > 1 else [text]
        if len(parts) < len(wanted):
            names = "<TAB>".join(wanted)
            raise DataError(f"text {number} has {len(parts)} of {len(wanted)} parts", f"write {names}, or give --data")
        documents.append((f"text {number}", dict(zip(wanted, parts, strict=False))))
    return make_rows(documents, task, {}, "the text")


def texts_from_pipe() -> list[str]:
    """The lines of standard input, without empty ones."""
    return [line.rstrip("\n") for line in sys.stdin if line.strip()]


def make_rows(
    numbered: Iterable[tuple[str, Mapping[str, Any]]],
    task: Task,
    columns: Mapping[str, str],
    where: str,
    folder: Path = Path(),
) -> list[Row]:
    """Checked rows of documents; each is named in errors by what stands before it. Files are found from ``folder``."""
    if task.family == "retrieval":
        raise UnsupportedError(f"{task.title} compares texts, it predicts nothing on a row", "use evaluate")
    questions, rows = _Questions(task), []
    for name, document in numbered:
        chosen = choose_columns(where, questions, list(document), columns)  # type: ignore[arg-type]
        row: Row = {}
        for column in questions.columns:
            cell = document.get(chosen.get(column.name, ""))
            if column.name in chosen and (column.required or cell not in (None, "")):
                row[column.name] = read_cell(name, chosen[column.name], column, cell, folder)
        rows.append(row)
    return rows


def with_blanks(rows: Sequence[Row], task: Task, labels: Sequence[str]) -> list[Row]:
    """The rows with an answer that says nothing, since encoding asks for one; none of it reaches a prediction."""
    answers = [column for column in task.columns if column.is_answer and column.kind != "references"]
    return [{**{column.name: _blank(column, row, labels) for column in answers}, **row} for row in rows]


def _blank(column: Column, row: Row, labels: Sequence[str]) -> Any:
    first = labels[0] if labels else ""
    return {
        "label": first,
        "labels": [],
        "number": 0.0,
        "tags": [first] * len(row.get("tokens", ())),
        "answers": {"text": [], "answer_start": []},
        "index": 0,
    }.get(column.kind, "")
