"""One method on one model with one recipe: what it needs, whether that fits, and what would make it fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import UnsupportedError
from peftselect.memory.changes import Change, cheapest_changes
from peftselect.memory.closed_form import (
    CUDA_CONTEXT_BYTES,
    ErrorBand,
    MemoryEstimate,
    Verdict,
    estimate_memory,
    verdict,
)
from peftselect.memory.setting import OPTIMIZERS, Setting, settle
from peftselect.memory.states import saved_bytes, total_parameters
from peftselect.memory.trace import Loop, NotTracedError, TracedMemory, TraceRequest
from peftselect.memory.traces import traced_memory

if TYPE_CHECKING:
    from peftselect.method import Recipe
    from peftselect.problem import Hardware
    from peftselect.shape import ModelShape

__all__ = ["OPTIMIZERS", "Estimate", "TraceMode", "estimate", "price", "trace_setting"]
TraceMode = Literal["never", "fast", "exact"]
#: absolute errors of traces against published runs, in percent (benchmarks/trace_error.py)
EXACT_BAND = ErrorBand(0.45, 5.1)
FAST_BAND = ErrorBand(0.59, 5.7)
#: in which parts are told
_ORDER = ("weights", "adapter", "gradients", "optimizer", "activations", "logits_and_loss")


@dataclass(frozen=True)
class Estimate:
    """The answer to one question about memory. All sizes are bytes of one device."""

    model: str
    method: str
    shape: ModelShape
    recipe: Recipe
    memory: MemoryEstimate
    verdict: Verdict
    vram_bytes: int | None
    trainable_parameters: int
    total_parameters: int
    adapter_bytes: int
    changes: tuple[Change, ...] = ()
    traced: TracedMemory | None = None
    #: why a trace that was asked for could not be had
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The published document; what only a trace knows is null without one."""
        traced, band = self.traced, self.memory.band
        return {
            "schema": 1,
            "source": self.memory.source,
            "peak_allocated_bytes": traced.peak_allocated_bytes if traced else self.memory.peak_bytes,
            "peak_reserved_bytes": traced and traced.peak_reserved_bytes,
            "smallest_capacity_bytes": traced and traced.smallest_capacity_bytes,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "adapter_bytes": self.adapter_bytes,
            "breakdown": dict(self.memory.breakdown),
            "error_band": {"median_percent": band.median_percent, "worst_percent": band.worst_percent},
            "fits": self.verdict.fits,
            "verdict": self.verdict.verdict,
            "changes": [{"change": change.text, "peak_bytes": change.peak_bytes} for change in self.changes],
            "note": self.note,
        }


def estimate(model: str, method: str | None, machine: Hardware, *, trace: TraceMode = "never", **how: Any) -> Estimate:
    """Price one training run on one of ``machine``'s devices; ``how`` is as :func:`settle` takes it.

    ``trace`` asks for the real training step traced on fake tensors, of a few layers ("fast") or of all ("exact"): in
    seconds, in a process of its own. Where that cannot be done the closed form answers, and a note says why.
    """
    return price(settle(model, method, machine, **how), trace)


def price(setting: Setting, trace: TraceMode = "never") -> Estimate:
    """Price a checked setting. UnsupportedError for a raw PEFT configuration that could not be traced."""
    found: TracedMemory | None = None
    note = ""
    if trace != "never":
        try:
            found = trace_setting(setting, trace)
        except NotTracedError as error:
            note = f"no trace ({error}): this is the closed form"
            if setting.method is None:
                raise UnsupportedError(
                    f"this PEFT configuration could not be traced: {error}",
                    "name the method instead (--method), for which there is a closed form",
                ) from error
    elif setting.method is None:
        raise UnsupportedError(
            "a raw PEFT configuration has no closed form", "trace it (--fast or --exact), or name its method"
        )
    return _answer(setting, found, note)


def trace_setting(setting: Setting, trace: TraceMode) -> TracedMemory:
    """The traced step of a setting. NotTracedError where it cannot be had."""
    if setting.machine.devices > 1:
        raise NotTracedError("several devices are not traced")
    head, base = setting.shape.head, setting.base
    request = TraceRequest(
        base.config,
        head.kind,
        head.num_labels or 2,
        base.lacks_pooler,
        setting.title,
        setting.values,
        setting.recipe,
        peft_config=setting.peft_config,
        loop=Loop(accumulates=setting.recipe.gradient_accumulation_steps > 1),
        fast=trace == "fast",
    )
    return traced_memory(request)


def _answer(setting: Setting, traced: TracedMemory | None, note: str) -> Estimate:
    shape, method, recipe, machine = setting.shape, setting.method, setting.recipe, setting.machine
    calibration = 1.0
    if method is not None:
        memory = estimate_memory(
            shape, method, setting.values, recipe, devices=machine.devices, sharding=machine.sharding
        )
        trainable = method.trainable_parameters(shape, setting.values)
        total = total_parameters(method, shape, setting.values)
        saved = saved_bytes(method, shape, setting.values)
    if traced is not None:
        calibration = traced.smallest_capacity_bytes / memory.peak_bytes if method is not None else 1.0
        memory = from_trace(traced)
        trainable, total = traced.trainable_parameters, traced.total_parameters
        saved = traced.adapter_bytes or saved
    answer = verdict(memory, machine.vram_bytes)
    changes: tuple[Change, ...] = ()
    if answer.verdict != "fits" and method is not None:
        found = cheapest_changes(
            shape, method, setting.values, recipe, machine.vram_bytes,
            devices=machine.devices, sharding=machine.sharding, calibration=calibration,
        )  # fmt: skip
        changes = tuple(change for change in found if change.verdict == "fits" or not answer.fits)
    return Estimate(
        model=setting.base.name,
        method=setting.title,
        shape=shape,
        recipe=recipe,
        memory=memory,
        verdict=answer,
        vram_bytes=machine.vram_bytes,
        trainable_parameters=trainable,
        total_parameters=total,
        adapter_bytes=saved,
        changes=changes,
        traced=traced,
        note=note,
    )


def from_trace(traced: TracedMemory) -> MemoryEstimate:
    """A traced step as an estimate: the peak is the least capacity with which the caching allocator survives."""
    known = [name for name in _ORDER if name in traced.breakdown]
    held = {name: traced.breakdown[name] for name in dict.fromkeys([*known, *traced.breakdown])}
    lost = traced.smallest_capacity_bytes - sum(held.values())
    parts = {**held, "fragmentation": lost, "cuda_context": CUDA_CONTEXT_BYTES}
    if traced.fast:
        return MemoryEstimate(traced.smallest_capacity_bytes, parts, FAST_BAND, "fast_trace")
    return MemoryEstimate(traced.smallest_capacity_bytes, parts, EXACT_BAND, "exact_trace")
