"""The largest micro-batch, or the longest input, that still fits a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftselect.errors import InputError
from peftselect.memory.estimate import price
from peftselect.memory.setting import MOST_ROWS, MOST_TOKENS

if TYPE_CHECKING:
    from peftselect.memory.estimate import Estimate, TraceMode
    from peftselect.memory.setting import Setting

#: lengths are tried in steps of this many tokens
LENGTH_STEP = 8
What = Literal["batch_size", "max_length"]


@dataclass(frozen=True)
class Largest:
    """The largest size that fits, with its estimate; ``size`` is 0 where not even the smallest does (whose estimate
    stands there then). ``limit`` says what ended the search."""

    what: What
    size: int
    limit: Literal["memory", "the model's positions", "nothing"]
    estimate: Estimate


def largest_batch(setting: Setting, trace: TraceMode = "never") -> Largest:
    """The largest micro-batch with the verdict "fits"; InputError without a budget."""
    _needs_budget(setting)
    return _search("batch_size", lambda rows: price(setting.changed(micro_batch_size=rows), trace), 1, MOST_ROWS)


def longest_input(setting: Setting, trace: TraceMode = "never") -> Largest:
    """The longest input, to :data:`LENGTH_STEP` tokens, with the verdict "fits"; InputError without a budget."""
    _needs_budget(setting)
    room = setting.shape.longest_input
    return _search(
        "max_length",
        lambda tokens: price(setting.changed(max_length=tokens), trace),
        1 if setting.shape.audio else LENGTH_STEP,
        min(room or MOST_TOKENS, MOST_TOKENS),
    )


def _search(what: What, at: Callable[[int], Estimate], step: int, most: int) -> Largest:
    """Double until it no longer fits, then halve the gap: about twice the logarithm of the answer in estimates."""
    best = at(step)
    if best.verdict.verdict != "fits":
        return Largest(what, 0, "memory", best)
    low, high, too_large = 1, most // step, most // step + 1
    tried = 2
    while too_large - low > 1:
        answer = at(tried * step)
        if answer.verdict.verdict == "fits":
            low, best = tried, answer
        else:
            too_large = tried
        tried = min(2 * low, high) if too_large > high else (low + too_large) // 2
    if low < high:
        return Largest(what, low * step, "memory", best)
    return Largest(what, low * step, "the model's positions" if what == "max_length" else "nothing", best)


def _needs_budget(setting: Setting) -> None:
    if setting.machine.vram_bytes is None:
        raise InputError("the largest for which budget?", "give --vram GIB")
