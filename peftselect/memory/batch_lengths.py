"""How long the batches of a data set are once they are padded to their longest row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftselect.data import read_rows, token_lengths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peftselect.problem import BaseModel
    from peftselect.task import Task

#: epochs that are drawn to see how long batches get
EPOCHS = 20


@dataclass(frozen=True)
class Spread:
    """Tokens: the median, the 99th percentile, the most."""

    p50: int
    p99: int
    longest: int


@dataclass(frozen=True)
class BatchLengths:
    """Token lengths of a file's rows and of its padded batches, drawn as ``run`` draws them (shuffled)."""

    examples: int
    rows: Spread
    batches: Spread
    targets: Spread
    origin: str


def batch_lengths(
    file: str | Path, task: Task, base: BaseModel, batch_size: int, columns: Mapping[str, str] | None = None
) -> BatchLengths:
    """Read a training file and draw its batches. DataError where it cannot be read."""
    rows = read_rows(file, task, columns or {})
    sources, targets, origin = token_lengths(rows, task, base)
    batches = [batch for epoch in range(EPOCHS) for batch in drawn(len(sources), batch_size, epoch)]
    lengths, answers = ([max(of[row] for row in batch) for batch in batches] for of in (sources, targets))
    return BatchLengths(len(rows), spread(sources), spread(lengths), spread(answers), origin)


def drawn(rows: int, batch_size: int, seed: int) -> list[list[int]]:
    """The batches of one shuffled epoch, each the indices of its rows."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def spread(lengths: Sequence[int]) -> Spread:
    """The spread of some lengths."""
    ordered = sorted(lengths)
    median, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    return Spread(median, high, ordered[-1])
