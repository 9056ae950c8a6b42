"""An order of rows in which those of like length share a batch, so that little of it is padding."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: batches that are sorted by length at a time, as transformers' own grouping does: few enough to leave epochs unlike
POOL = 50


def grouped_order(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """Indices of all rows, shuffled by ``seed``, so that each ``batch_size`` of them in turn are of like length.

    Rows are shuffled, cut into pools of :data:`POOL` batches (fewer where there are few rows, so that each epoch has
    other batches), and each pool is sorted. The batches are then shuffled among one another, since a course from long
    to short would go through the loss too; the longest comes first, where running out of memory costs least, and the
    one that is not full last. The longest batch of an epoch is as long as the longest row, whatever the order.
    """
    draw = random.Random(seed)
    rows = list(range(len(lengths)))
    draw.shuffle(rows)
    pool = batch_size * max(min(len(rows) // (batch_size * 4), POOL), 1)
    batches: list[list[int]] = []
    for start in range(0, len(rows), pool):
        alike = sorted(rows[start : start + pool], key=lengths.__getitem__, reverse=True)
        batches += [alike[begin : begin + batch_size] for begin in range(0, len(alike), batch_size)]
    rest = batches.pop() if batches and len(batches[-1]) < batch_size else []
    draw.shuffle(batches)
    if batches:
        longest = max(range(len(batches)), key=lambda number: lengths[batches[number][0]])
        batches[0], batches[longest] = batches[longest], batches[0]
    return [row for batch in [*batches, rest] for row in batch]
