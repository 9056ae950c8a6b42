"""The rows of a run: training, validation and test, each from its file or split off the training rows."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.data import read_rows
from peftselect.data_checks import normalise
from peftselect.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.task import Row, Task

VALIDATION_SHARE = 0.1
#: bounds of the part that is split off: fewer rows say nothing, more cost time
FEWEST, MOST = 20, 1000


@dataclass(frozen=True)
class Splits:
    """Rows by their use. ``labels`` are the label names of the training file; ``notes`` say what was made of it."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    labels: tuple[str, ...]
    #: whether the rows that choose the best state also give the final score
    test_is_validation: bool
    notes: tuple[str, ...] = ()


def read_splits(
    task: Task,
    train: str | Path,
    evaluation: str | Path | None,
    test: str | Path | None,
    columns: Mapping[str, str],
    limits: tuple[int | None, int | None],
    seed: int,
) -> Splits:
    """Read and complete the three sets.

    ``limits`` are the most rows to take: of each set, and of the test set where that has a limit of its own. They are
    drawn by ``seed``.
    """
    notes: list[str] = []
    limit = limits[0]
    whole = read_rows(train, task, columns, split="train")
    labels = task.label_names(whole)
    if len(labels) == 1 and any(column.kind == "label" for column in task.columns):
        raise DataError(f"{train}: every row has the label {labels[0]!r}", "there is nothing to tell apart")
    rows = draw(whole, limit, seed)
    if evaluation is None:
        rows, validation = split_off(task, rows, seed)
        notes.append(f"no --eval: {len(validation)} of {len(whole):,} training rows were set aside for validation")
    else:
        validation = draw(_read_beside(task, evaluation, "validation", columns, labels), limit, seed)
    held_out = validation
    if test is None:
        notes.append("no --test: the final scores are on the validation rows, which also chose the best state")
    else:
        held_out = draw(_read_beside(task, test, "test", columns, labels), limits[1] or limit, seed)
    if len(rows) < len(whole):
        notes.append(f"trained on {len(rows):,} of the {len(whole):,} rows")
    return Splits(rows, validation, held_out, labels, test is None, tuple(notes))


def split_off(task: Task, rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """(training, validation) rows: a tenth set aside by ``seed``. Rows with the same input stay together."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[normalise(task, row)].append(index)
    keys = sorted(groups)
    if len(keys) < 2:
        raise DataError("too few different rows to set some aside for validation", "give --eval FILE, or more rows")
    random.Random(seed).shuffle(keys)
    wanted = min(max(round(VALIDATION_SHARE * len(rows)), FEWEST), MOST, len(rows) // 2)
    aside: set[int] = set()
    for key in keys[:-1]:
        if len(aside) >= wanted:
            break
        aside |= set(groups[key])
    kept = [row for index, row in enumerate(rows) if index not in aside]
    return kept, [row for index, row in enumerate(rows) if index in aside]


def draw(rows: list[Any], limit: int | None, seed: int) -> list[Any]:
    """At most ``limit`` rows, drawn over the whole file (files are often sorted), in its order."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), limit))]


def _read_beside(
    task: Task, path: str | Path, split: str, columns: Mapping[str, str], labels: Sequence[str]
) -> list[Row]:
    """Validation or test rows, whose labels training must know."""
    return read_rows(path, task, columns, split=split, labels=labels)


def data_set_name(path: str | Path) -> str:
    """What the data are called in a record: the folder of a file that is named after its split, else the file."""
    file = Path(path)
    named_after_split = file.stem.lower() in ("train", "training", "data")
    return file.resolve().parent.name if named_after_split and file.exists() else file.stem
