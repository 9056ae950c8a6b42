"""Fast mode: trace a model of a few layers, twice or thrice, and extend what was allocated to all of its layers.

What a step allocates grows by the same amount with each layer of a stack (0.3 % off at worst on 52 published
configurations), as long as the layers are alike and the method treats them alike. Both are checked: the layer counts
cover whole groups of unlike layers, and parameters extended the same way must come to those of the whole model. What
the allocator reserves does not grow so, and is not extended: the capacity is the allocated peak and a margin.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peftselect.memory.allocator import ROUND_BYTES, Event
from peftselect.memory.trace import NotTracedError, TracedMemory, TraceRequest
from peftselect.memory.tracing.answer import WORKSPACE_BYTES, counts, trace
from peftselect.memory.tracing.building import shape_of
from peftselect.memory.tracing.log import AllocationLog

#: layers of a short model: the first differs from the others often enough (T5's holds the position bias)
FEWEST = 2
#: what the caching allocator needs beyond what is asked of it: smallest capacity over allocated peak of exact traces
CAPACITY_FACTOR = 1.03
#: a stack of at most this many periods of layers is traced whole
WORTH_IT = 4
Parts = Mapping[str, float]


@dataclass(frozen=True)
class _Short:
    """What a short model's step held at the highest moment of each phase, and its counts."""

    phases: Mapping[str, Parts]
    trainable: int
    total: int
    saved: int


def fast_answer(request: TraceRequest) -> TracedMemory:
    """Trace short models and extend. NotTracedError where a few layers cannot stand for all."""
    started = time.perf_counter()
    shape = shape_of(request)
    whole = (shape.encoder_layers, shape.decoder_layers)
    starts, steps = zip(*(_layer_counts(request.config, layers) for layers in whole), strict=True)
    first = _short(request, starts)
    growths = []
    for stack, step in enumerate(steps):
        if step:
            longer = tuple(count + step * (index == stack) for index, count in enumerate(starts))
            growths.append((_short(request, longer), (whole[stack] - starts[stack]) / step))
    extended = _extend(first, growths)
    trainable, total, saved = counts(request)
    # a share of all weights is rounded once a model, so that it may be one off for each layer that was extended
    rounded = 1 + sum(times for _, times in growths)
    if max(abs(extended.trainable - trainable), abs(extended.total - total)) > rounded:
        raise NotTracedError("its layers are not alike, so that a few cannot stand for all")
    parts = {name: round(amount) for name, amount in max(extended.phases.values(), key=_sum).items() if amount > 0}
    peak = sum(parts.values()) + WORKSPACE_BYTES
    capacity = round(CAPACITY_FACTOR * peak)
    seconds = round(time.perf_counter() - started, 2)
    return TracedMemory(peak, capacity, capacity, parts, trainable, total, saved, seconds, fast=True)


def highest_moments(log: AllocationLog) -> dict[str, Parts]:
    """Bytes by kind, as the allocator rounds them, at the highest moment of each phase of each step.

    Phases begin at the log's marks.
    """
    held: Counter[str] = Counter()
    phase, highest = "build", 0
    found: dict[str, Parts] = {}
    for what, key, nbytes in _with_kinds(log.events, log):
        if what == "mark":
            phase, highest = key, 0
        elif what in ("alloc", "free"):
            rounded = -(-nbytes // ROUND_BYTES) * ROUND_BYTES
            held[key] += rounded if what == "alloc" else -rounded
            if (now := held.total()) > highest:
                highest, found[phase] = now, dict(held)
    return found


def _with_kinds(events: Sequence[Event], log: AllocationLog) -> Iterable[tuple[str, str, int]]:
    for what, key, nbytes in events:
        yield what, log.kind(key) if what in ("alloc", "free") else str(key), nbytes


def _layer_counts(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """(layers of the shortest model, how many more the longer one has): whole periods of unlike layers."""
    period = _period(config, layers)
    start = max(FEWEST, period)
    if layers <= start + period or layers < WORTH_IT:
        return layers, 0
    return start, period


def _period(config: Mapping[str, Any], layers: int) -> int:
    """After how many layers the kinds of layer repeat (Gemma mixes sliding and full attention)."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(set(kinds)) > 1:
        return next(
            (size for size in range(1, layers) if all(kinds[i] == kinds[i - size] for i in range(size, len(kinds)))),
            layers,
        )
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
    if isinstance(pattern, int):
        return pattern
    groups = config.get("attention_types")  # GPT-Neo: [[["global", "local"], 12]]
    return max((len(kinds) for kinds, _ in groups), default=1) if groups else 1


def _short(request: TraceRequest, layers: tuple[int, ...]) -> _Short:
    traced = trace(replace(request, layers=(layers[0], layers[1])))
    return _Short(highest_moments(traced.log), traced.trainable_parameters, traced.total_parameters, traced.saved_bytes)


def _extend(first: _Short, growths: Sequence[tuple[_Short, float]]) -> _Short:
    """``first`` and, for each stack, its growth times how often it is still missing."""
    phases: dict[str, Parts] = {}
    for phase, parts in first.phases.items():
        names = set(parts).union(*(longer.phases.get(phase, {}) for longer, _ in growths))
        phases[phase] = {
            name: parts.get(name, 0)
            + sum((longer.phases[phase].get(name, 0) - parts.get(name, 0)) * times for longer, times in growths)
            for name in names
        }
    trainable, total, saved = (
        getattr(first, field)
        + sum((getattr(longer, field) - getattr(first, field)) * times for longer, times in growths)
        for field in ("trainable", "total", "saved")
    )
    return _Short(phases, trainable, total, saved)


def _sum(parts: Parts) -> float:
    return sum(parts.values())
