"""Trace training steps of a model on fake tensors: the log of what a GPU's allocator would be asked for."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch._subclasses.fake_tensor import FakeTensorMode

from peftselect.memory.trace import RUN_LOOP, Loop
from peftselect.memory.tracing.attention import attention_as_on_cuda
from peftselect.memory.tracing.log import AllocationLog
from peftselect.memory.tracing.policies import PolicyTracker
from peftselect.memory.tracing.precision import copies_forgotten, mixed_precision
from peftselect.memory.tracing.saved import saved_bytes
from peftselect.memory.tracing.stand_ins import FAKE_DEVICE, FakeBackend, stand_ins
from peftselect.modeling import count_parameters
from peftselect.zeroth_order import ForwardOptimizer

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TracedModel:
    """What a builder hands over: the model with its method applied, and how it is trained.

    ``vocabulary`` is the width by which logits are told.
    """

    model: Any
    optimizer: Any
    autocast_dtype: torch.dtype | None = None
    max_grad_norm: float = 1.0
    vocabulary: int = 0
    loop: Loop = RUN_LOOP


@dataclass(frozen=True)
class Trace:
    """The outcome: the log, the peak asked for (bytes), what held it, and the counts of the model."""

    log: AllocationLog
    peak_bytes: int
    breakdown: dict[str, int]
    trainable_parameters: int
    total_parameters: int
    saved_bytes: int


@contextlib.contextmanager
def fake_device() -> Iterator[str]:
    """The fake device's name, registered once a process; fake tensors are on inside the block."""
    global _registered
    if not _registered:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(FAKE_DEVICE, FakeBackend())
        _registered = True
    with FakeTensorMode(allow_non_fake_inputs=True), stand_ins():
        yield FAKE_DEVICE


_registered = False


def trace_steps(
    load: Callable[[str], Any],
    prepare: Callable[[Any], TracedModel],
    batches: Callable[[str], Sequence[Batch]],
    *,
    padded: bool = True,
    reserves_weights: bool = False,
) -> Trace:
    """Load a base model, make it ready to train, and run one optimizer step on each batch, logging every storage.

    ``load(device)`` makes the base model, of which only what it holds in the end counts; ``prepare(model)`` applies the
    method. ``reserves_weights``: the room of the base's weights is taken in one piece first (:class:`Loop`).

    The first batch should be a short one: the second step then sees the optimizer's states. Gradients are cleared
    before each step, norms are clipped, exactly as transformers' Trainer does.
    """
    log = AllocationLog()
    with fake_device() as device, attention_as_on_cuda(padded=padded), copies_forgotten():
        tracker = PolicyTracker(log, device)
        base = load(device)
        _note_weights(log, base, reserves_weights)
        with tracker:
            made = prepare(base)
        tracker.wide = made.vocabulary
        model, optimizer = made.model, made.optimizer
        _label_parameters(log, model)
        saved = saved_bytes(model)
        trainable, total = count_parameters(model)
        if made.loop.toggles_adapter:
            with model.disable_adapter():
                pass
        gc.collect()
        model.train()
        held: Any = None
        for index, (batch, turn) in enumerate(_turns(_as_wide(batches(device), model), made.loop)):
            if index and made.loop.empties_cache:
                log.empty_cache()
            with tracker:
                held = _step(log, made, batch, index, turn)
            log.relabel(_optimizer_tensors(optimizer), "optimizer")
        del held
        breakdown = log.breakdown_at_peak()
    return Trace(log, log.peak_bytes, breakdown, trainable, total, saved)


def _as_wide(batches: Sequence[Batch], model: Any) -> list[Batch]:
    """Sound comes in the width of the model's weights, as the collators of speech tasks give it."""
    return [
        {name: item.to(model.dtype) if item.is_floating_point() else item for name, item in batch.items()}
        for batch in batches
    ]


@dataclass(frozen=True)
class _Turn:
    """A micro-batch's place in its optimizer step."""

    first: bool = True
    last: bool = True


def _turns(batches: Sequence[Batch], loop: Loop) -> list[tuple[Batch, _Turn]]:
    """Each batch as a step of its own; under accumulation the last one ends a step that the first one began."""
    turns = [(batch, _Turn()) for batch in batches]
    if loop.accumulates:
        turns[-1:] = [(batches[0], _Turn(last=False)), (batches[-1], _Turn(first=False))]
    return turns


def _step(log: AllocationLog, made: TracedModel, batch: Batch, index: int, turn: _Turn) -> Any:
    """One optimizer step; what the loop holds on to until the next forward pass is over is given back."""
    model, optimizer = made.model, made.optimizer
    if turn.first:
        optimizer.zero_grad()
    log.phase = "activations"
    for tensor in batch.values():
        log.born(tensor.untyped_storage())
    log.mark(f"forward {index}")
    if isinstance(optimizer, ForwardOptimizer):
        optimizer.measure(lambda: _loss(made, batch))
        log.mark(f"optimizer {index}")
        log.phase = "optimizer"
        optimizer.step()
        log.mark(f"end {index}")
        return None
    with mixed_precision(made.autocast_dtype):
        output = model(**batch)
    if made.autocast_dtype is not None:
        output = convert_to_fp32(output)  # accelerate hands outputs on in float32
    loss = output["loss"] if "loss" in output else _stand_in_loss(output)
    held = (output, loss) if made.loop.keeps_outputs else None
    del output
    log.mark(f"backward {index}")
    loss.backward()
    log.relabel((p.grad for p in model.parameters() if p.grad is not None), "gradients")
    if not turn.last:
        return held
    log.mark(f"optimizer {index}")
    log.phase = "optimizer"
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], made.max_grad_norm)
    optimizer.step()
    log.mark(f"end {index}")
    return held


def _loss(made: TracedModel, batch: Batch) -> torch.Tensor:
    """What an optimizer that needs no gradients is handed."""
    with mixed_precision(made.autocast_dtype):
        output = made.model.eval()(**batch)
    if made.autocast_dtype is not None:
        output = convert_to_fp32(output)
    loss: torch.Tensor = output["loss"] if "loss" in output else _stand_in_loss(output)
    return loss


def _stand_in_loss(output: Any) -> torch.Tensor:
    """Where the batch has no labels: CTC's log-softmax in float32, or something small on vectors.

    The rest of these losses is a few numbers a row or a label, which weigh nothing beside the body.
    """
    if "logits" in output:
        likelihoods = torch.nn.functional.log_softmax(output["logits"].flatten(0, 1), dim=-1, dtype=torch.float32)
        blanks = torch.zeros(len(likelihoods), dtype=torch.long, device=likelihoods.device)
        return torch.nn.functional.nll_loss(likelihoods, blanks)
    mean: torch.Tensor = output["last_hidden_state"].float().mean()
    return mean


def _note_weights(log: AllocationLog, base: Any, at_once: bool) -> None:
    """The base as it stands on the device, weights first, in the order of its modules."""
    held = [*base.parameters(), *base.buffers()]
    if at_once:
        log.temporary(sum({id(p.untyped_storage()): p.untyped_storage().nbytes() for p in held}.values()))
    for tensor in held:
        if tensor.device.type == FAKE_DEVICE:
            log.born(tensor.untyped_storage(), "weights")


def _label_parameters(log: AllocationLog, model: Any) -> None:
    """Parameters and buffers get the kinds under which the breakdown shows them."""
    for tensor in [*model.parameters(), *model.buffers()]:
        log.born(tensor.untyped_storage(), "weights")
    log.relabel((p for p in model.parameters() if p.requires_grad), "adapter")


def _optimizer_tensors(optimizer: Any) -> Iterator[Any]:
    for state in optimizer.state.values():
        yield from state.values()
