"""What a prediction rests on, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.features import Cell, Observation


def evidence_in_words(own: Sequence[Observation], local: Sequence[Observation], asked: Cell) -> str:
    """How many comparisons a method has (``own``), and how many of them are like what is ``asked`` (``local``)."""
    if not own:
        return "no comparison with other methods: placed by its structure"
    family = [item for item in own if item.cell.family == asked.family]
    text = f"{len(own)} comparison{'s' * (len(own) != 1)} with other methods"
    if not family:
        return f"{text}, none of them of {asked.family} tasks"
    data = f", {len(local)} of these with {asked.regime} data" if asked.regime != "unknown" else ""
    return f"{text}, {len(family)} of them of {asked.family} tasks{data}"
