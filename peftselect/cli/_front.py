"""The Pareto front of an answer as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.cli import console
from peftselect.words import size, span

if TYPE_CHECKING:
    from peftselect.selector import Tradeoffs


def show(found: Tradeoffs) -> None:
    """Print the candidates that nothing beats, best quality first, with the preferences that choose them."""
    if not found.front:
        return
    timed = any(item.train_seconds for item in found.front)
    columns = ["method", "quality", "memory", *["time"] * timed, "adapter", "chosen by --prefer"]
    rows = []
    for item in found.front:
        time = span(item.train_seconds.value) if item.train_seconds else "?"
        cells = [item.method, f"{item.quality:+.1f}", size(item.memory.device_bytes), *[time] * timed]
        rows.append((*cells, size(item.adapter_bytes), ", ".join(found.chosen_by(item.method))))
    caption = "no other candidate is as good in all of these and better in one; --explain shows what decides"
    keep = ("method", "memory", "time", "adapter")
    console.table("Pareto front", columns, rows, right=columns[1:-1], caption=caption, keep=keep)
    for text in found.notes:
        console.say(f"Note: {text}.", style="dim")
