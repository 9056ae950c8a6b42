"""The device of a run, and the recipe as that device can run it."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from peftselect.training import ranks

if TYPE_CHECKING:
    from peftselect.method import Candidate
    from peftselect.problem import Problem


#: how oneDNN and the interpreter say that there was no room for a kernel's scratch or a thread's stack
NO_ROOM = ("could not create a primitive", "could not create a memory object", "can't start new thread")


@dataclass(frozen=True)
class Machine:
    """Where training runs: torch's device, and what had to be changed of the recipe for it."""

    device: Any
    candidate: Candidate
    max_length: int
    notes: tuple[str, ...]

    @property
    def cuda(self) -> bool:
        """Whether the CUDA allocator can be asked for its peak."""
        return bool(self.device.type == "cuda")


def settle(problem: Problem, candidate: Candidate, cpu: bool) -> Machine:
    """Fit the candidate's recipe to this machine: precision, accumulation in place of devices, room for positions."""
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if device.type == "cuda" and ranks.count() > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    notes: list[str] = []
    recipe = candidate.recipe
    precision = _precision(problem, recipe.precision, device)
    if precision != recipe.precision:
        notes.append(f"{recipe.precision} gives way to {precision}: {_why(device)}")
    accumulation = recipe.gradient_accumulation_steps * problem.hardware.devices // ranks.count()
    recipe = replace(recipe, precision=precision, gradient_accumulation_steps=accumulation)
    room = _room(problem, candidate)
    length = recipe.max_length if room is None else min(recipe.max_length, room)
    if length < recipe.max_length:
        notes.append(f"inputs are cut at {length} tokens: the model's positions end at {problem.shape.max_positions}")
    recipe = replace(recipe, max_length=length)
    return Machine(device, replace(candidate, recipe=recipe), length, tuple(notes))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a card or in RAM; what was raised from such an error counts too."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error):
        return True
    if isinstance(error, RuntimeError) and str(error) in NO_ROOM:
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def release() -> None:
    """Give back what an earlier attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _precision(problem: Problem, wanted: str, device: Any) -> Literal["bf16", "fp16", "fp32", "pure_bf16"]:
    """float32 on a CPU, where 16 bits are slower; no bfloat16 on cards that only emulate it."""
    if wanted == "fp32" or device.type == "cpu":
        return "fp32"
    if wanted in ("bf16", "pure_bf16") and not torch.cuda.is_bf16_supported(including_emulation=False):
        # T5's activations overflow in float16
        return "fp32" if problem.shape.relative_attention else "fp16"
    return wanted  # type: ignore[return-value]  # one of the recipe's own


def _why(device: Any) -> str:
    return "16 bits are slower on a CPU" if device.type == "cpu" else "this card has no bfloat16"


def _room(problem: Problem, candidate: Candidate) -> int | None:
    """Tokens of input that the model has positions for, beside what the method and the answer take."""
    shape = problem.shape
    if shape.max_positions is None:
        return None
    traits = candidate.method.memory(shape, candidate.values, 4)
    prefix = 0 if traits.prefix_everywhere else traits.prefix_positions
    taken = max(candidate.method.prepended_positions(candidate.values), traits.virtual_tokens + prefix)
    if shape.head.kind == "causal_lm":
        taken += candidate.recipe.max_target_length
    return max(shape.max_positions - taken, 1)
