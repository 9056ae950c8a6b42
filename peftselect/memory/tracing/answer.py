"""From a question to traced numbers: build, trace two steps, replay them through the allocator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from peftselect.memory.allocator import replay, smallest_capacity
from peftselect.memory.trace import Loop, TracedMemory, TraceRequest
from peftselect.memory.tracing.building import (
    apply_method,
    load_model,
    make_batch,
    method_of,
    prepended,
    shape_of,
    wants_task_ids,
)
from peftselect.memory.tracing.log import AllocationLog
from peftselect.memory.tracing.optimizers import make_optimizer
from peftselect.memory.tracing.policies import PolicyTracker
from peftselect.memory.tracing.saved import saved_bytes
from peftselect.memory.tracing.step import Batch, Trace, TracedModel, fake_device, trace_steps
from peftselect.method import Recipe
from peftselect.modeling import DTYPES, autocast, count_parameters

#: cuBLAS keeps a workspace from its first product on (8.125 MiB on current cards)
WORKSPACE_BYTES = round(8.125 * 2**20)
#: the shorter step of a model that hears
SHORT_SECONDS = 1


def answer(request: TraceRequest) -> TracedMemory:
    """Trace two steps and replay them through the allocator. NotTracedError where that cannot be done."""
    started = time.perf_counter()
    traced = trace(request)
    events = traced.log.events
    whole = replay(events, workspace_bytes=WORKSPACE_BYTES)
    return TracedMemory(
        peak_allocated_bytes=whole.peak_allocated,
        peak_reserved_bytes=whole.peak_reserved,
        smallest_capacity_bytes=smallest_capacity(events, WORKSPACE_BYTES),
        breakdown=traced.breakdown,
        trainable_parameters=traced.trainable_parameters,
        total_parameters=traced.total_parameters,
        adapter_bytes=traced.saved_bytes,
        seconds=round(time.perf_counter() - started, 2),
    )


def trace(request: TraceRequest) -> Trace:
    """Trace a short step and one at the recipe's longest length."""
    recipe, shape = request.recipe, shape_of(request)
    short = SHORT_SECONDS if shape.audio else request.loop.first_length
    lengths = ((short, min(short, recipe.max_target_length or short)), (recipe.max_length, recipe.max_target_length))

    def batches(device: str) -> Sequence[Batch]:
        before = prepended(request)
        rows = recipe.micro_batch_size
        ids = {"task_ids": torch.zeros(rows, dtype=torch.long, device=device)} if wants_task_ids(request) else {}
        return [{**make_batch(shape, rows, *sizes, before, device), **ids} for sizes in lengths]

    def prepare(base: Any) -> TracedModel:
        model = apply_method(base, request, shape)
        method = method_of(request)
        mixed = autocast(model, recipe, forward_only=method.forward_only) if method is not None else None
        own = method.optimizer(model, request.values) if method is not None else None
        optimizer = own if own is not None else make_optimizer(recipe.optimizer, model)
        return TracedModel(
            model, optimizer, DTYPES[mixed] if mixed else None, vocabulary=shape.vocab_size, loop=request.loop
        )

    return trace_steps(
        lambda device: load_model(request, shape, device),
        prepare,
        batches,
        padded=request.padded,
        reserves_weights=request.loop.reserves_weights,
    )


def counts(request: TraceRequest) -> tuple[int, int, int]:
    """(trainable parameters, all parameters, bytes of the saved file) of the whole model; no step is taken."""
    shape = shape_of(request)
    with fake_device() as device, PolicyTracker(AllocationLog(), device):
        model = apply_method(load_model(request, shape, device), request, shape)
        return *count_parameters(model), saved_bytes(model)


def read_request(document: Mapping[str, Any]) -> TraceRequest:
    """A request from its JSON form; lists become tuples again, which is what methods expect."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in document["values"].items()}
    layers = document.get("layers")
    known = {
        "values": values,
        "recipe": Recipe(**document["recipe"]),
        "loop": Loop(**document.get("loop", {})),
        "layers": None if layers is None else tuple(layers),
    }
    return TraceRequest(**{**document, **known})
