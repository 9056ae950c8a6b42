"""One method on one model with one recipe: what it needs, whether that fits, and what would make it fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftselect.base_models import resolve_base_model
from peftselect.errors import InputError, UnknownNameError, UnsupportedError
from peftselect.memory.changes import Change, cheapest_changes
from peftselect.memory.closed_form import MemoryEstimate, Verdict, estimate_memory, verdict
from peftselect.memory.states import OPTIMIZER_BYTES
from peftselect.memory.trace import NotTracedError, TracedMemory, TraceRequest, trace_memory
from peftselect.method import ADAPTER_HEADER_BYTES, Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Method
    from peftselect.problem import BaseModel, Hardware
    from peftselect.shape import ModelShape
    from peftselect.task import Task

#: adapters, and models that were trained whole, are saved in float32
SAVED_BYTES = 4
OPTIMIZERS: tuple[str, ...] = tuple(OPTIMIZER_BYTES)
#: band of a traced estimate, in percent (benchmarks/README.md)
TRACE_ERROR_PERCENT = 8.0
#: without a task: the usual length of a training example
DEFAULT_LENGTH, DEFAULT_TARGET_LENGTH = 512, 128


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
        traced = self.traced
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
            "error_band_percent": self.memory.error_band_percent,
            "fits": self.verdict.fits,
            "verdict": self.verdict.verdict,
            "changes": [{"change": change.text, "peak_bytes": change.peak_bytes} for change in self.changes],
            "note": self.note,
        }


def estimate(
    model: str,
    method: str,
    machine: Hardware,
    *,
    task: str | None = None,
    num_labels: int = 2,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    gradient_accumulation_steps: int = 1,
    max_length: int | None = None,
    max_target_length: int | None = None,
    precision: str = "bf16",
    quantization: str | None = None,
    optimizer: str = "adamw",
    gradient_checkpointing: bool = False,
    exact: bool = False,
) -> Estimate:
    """Price one training run on one of ``machine``'s devices.

    ``exact`` traces the real training step on fake tensors (seconds, in a process of its own) and falls back to the
    closed form, with a note, where that cannot be done.

    ``batch_size`` is one device's micro-batch; lengths are tokens, by default those of ``task``, and inputs are cut at
    the model's last position. InputError (or a child) names what cannot be used.
    """
    base, chosen = resolve_base_model(model), host().method(method)
    wanted = host().task(task) if task else None
    shape = _shape(base, wanted, num_labels)
    _serves(chosen, base, shape)
    if optimizer not in OPTIMIZERS:
        raise UnknownNameError("optimizer", optimizer, list(OPTIMIZERS))
    values = resolve_values(chosen, shape, settings)
    if reason := chosen.unsupported(shape, values):
        raise UnsupportedError(f"{chosen.title} cannot serve {base.name}: {reason}", "choose another method or model")
    length, target = _lengths(shape, wanted, max_length, max_target_length)
    recipe = Recipe(
        precision=precision,  # type: ignore[arg-type]  # the command line and the API offer the recipe's own words
        quantization=_storage(chosen, quantization),  # type: ignore[arg-type]
        micro_batch_size=_positive("batch size", batch_size),
        gradient_accumulation_steps=_positive("gradient accumulation", gradient_accumulation_steps),
        gradient_checkpointing=gradient_checkpointing,
        learning_rate=float(values["learning_rate"]),
        num_train_epochs=1.0,
        max_length=length,
        max_target_length=target,
        optimizer=optimizer,
    )
    if gradient_checkpointing and not chosen.gradient_checkpointing:
        raise UnsupportedError(f"{chosen.title} does not work with gradient checkpointing", "leave it off")
    traced, note = _trace(base, chosen, shape, values, recipe, machine) if exact else (None, "")
    return _answer(base, chosen, shape, values, recipe, machine, traced, note)


def _trace(
    base: BaseModel, method: Method, shape: ModelShape, values: Mapping[str, Any], recipe: Recipe, machine: Hardware
) -> tuple[TracedMemory | None, str]:
    """The traced step, or why there is none."""
    head = shape.head
    request = TraceRequest(base.config, head.kind, head.num_labels or 2, base.lacks_pooler, method.name, values, recipe)
    try:
        if machine.devices > 1:
            raise NotTracedError("several devices are not traced")
        if recipe.gradient_accumulation_steps > 1:
            raise NotTracedError("gradients that wait over micro-batches are not traced")
        return trace_memory(request), ""
    except NotTracedError as error:
        return None, f"no trace ({error}): this is the closed form"


def _answer(
    base: BaseModel,
    method: Method,
    shape: ModelShape,
    values: Mapping[str, Any],
    recipe: Recipe,
    machine: Hardware,
    traced: TracedMemory | None,
    note: str,
) -> Estimate:
    memory = estimate_memory(shape, method, values, recipe, devices=machine.devices, sharding=machine.sharding)
    if traced is not None:
        memory = from_trace(traced, memory)
    answer = verdict(memory, machine.vram_bytes)
    changes: tuple[Change, ...] = ()
    if answer.verdict != "fits":
        found = cheapest_changes(
            shape, method, values, recipe, machine.vram_bytes, devices=machine.devices, sharding=machine.sharding
        )
        changes = tuple(change for change in found if change.verdict == "fits" or not answer.fits)
    trainable = method.trainable_parameters(shape, values)
    inside = not method.saves_adapter or method.family == "selective"  # trains what is there, adds nothing
    return Estimate(
        model=base.name,
        method=method.name,
        shape=shape,
        recipe=recipe,
        memory=memory,
        verdict=answer,
        vram_bytes=machine.vram_bytes,
        trainable_parameters=trainable,
        total_parameters=shape.total_parameters + (0 if inside else trainable - shape.head.parameters),
        adapter_bytes=SAVED_BYTES * method.saved_parameters(shape, values) + ADAPTER_HEADER_BYTES,
        changes=changes,
        traced=traced,
        note=note,
    )


def from_trace(traced: TracedMemory, closed: MemoryEstimate) -> MemoryEstimate:
    """A traced step as an estimate: the peak is the least capacity with which the caching allocator survives."""
    held = dict(traced.breakdown)
    lost = traced.smallest_capacity_bytes - sum(held.values())
    parts = {**held, "fragmentation": lost, "cuda_context": closed.breakdown["cuda_context"]}
    return MemoryEstimate(traced.smallest_capacity_bytes, parts, TRACE_ERROR_PERCENT, "exact_trace")


def _shape(base: BaseModel, task: Task | None, num_labels: int) -> ModelShape:
    shape = read_shape(base.config, num_labels=_positive("number of labels", num_labels))
    if task is None:
        return shape
    head = task.heads.get(shape.architecture)
    if head is None:
        able = ", ".join(sorted(task.heads))
        raise InputError(f"{base.name} ({shape.architecture}) cannot serve {task.name}", f"it takes: {able}")
    return read_shape(base.config, head, num_labels)


def _serves(method: Method, base: BaseModel, shape: ModelShape) -> None:
    if shape.head.kind not in method.heads:
        able = ", ".join(sorted(method.heads))
        raise UnsupportedError(f"{method.title} cannot train a {shape.head.kind} head", f"it can train: {able}")
    if shape.architecture not in method.architectures:
        raise UnsupportedError(
            f"{method.title} cannot serve {base.name} ({shape.architecture})", "choose another model"
        )


def _lengths(
    shape: ModelShape, task: Task | None, max_length: int | None, max_target_length: int | None
) -> tuple[int, int]:
    """Tokens of the longest input and output, the second 0 for heads that write no text."""
    room = shape.max_positions
    usual = task.default_max_length if task else DEFAULT_LENGTH
    length = _positive("max length", usual if max_length is None else max_length)
    if max_length is not None and room is not None and length > room:
        raise InputError(f"a length of {length} is more than {shape.model_type} can read", f"positions end at {room}")
    length = min(length, room) if room is not None else length
    writes = shape.head.kind == "seq2seq_lm" or (task is not None and task.generates(shape.head.kind))
    if not writes and max_target_length is None:
        return length, 0
    default = task.default_max_target_length if task else DEFAULT_TARGET_LENGTH
    return length, _positive("max target length", default if max_target_length is None else max_target_length)


def _storage(method: Method, quantization: str | None) -> str | None:
    if quantization == "none":
        quantization = None
    if quantization is None and method.quantized_base == "required":
        return "nf4"
    if quantization is not None and method.quantized_base == "no":
        raise UnsupportedError(f"{method.title} cannot train over a quantised base", "take --quantization none")
    return quantization


def _positive(name: str, number: int) -> int:
    if number < 1:
        raise InputError(f"{name} {number} is too small", "give 1 or more")
    return number
