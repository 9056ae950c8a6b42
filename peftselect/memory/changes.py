"""What would make a recipe fit: changes that are cheap in quality and time first, each with its price in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftselect.memory.closed_form import VerdictName, estimate_memory, verdict

if TYPE_CHECKING:
    from peftselect.method import Method, Recipe
    from peftselect.problem import Sharding
    from peftselect.shape import ModelShape

#: lengths below this are no longer the same task
SHORTEST = 64


@dataclass(frozen=True)
class Change:
    """One change to a recipe: what to do in words, the changed recipe and values, and what it then needs."""

    text: str
    recipe: Recipe
    values: Mapping[str, Any]
    peak_bytes: int
    verdict: VerdictName


def cheapest_changes(
    shape: ModelShape,
    method: Method,
    values: Mapping[str, Any],
    recipe: Recipe,
    vram_bytes: int | None,
    *,
    devices: int = 1,
    sharding: Sharding = "none",
    calibration: float = 1.0,
) -> list[Change]:
    """Changes after which the recipe fits ``vram_bytes`` on each device, the least harmful first.

    Single changes come first; then each on top of a micro-batch of 1, of checkpointing, and of both. Prices are the
    closed form's times ``calibration``, which is what a trace of the unchanged recipe came to over it.
    """
    found: dict[str, Change] = {}
    for text, changed, new_values in [
        *_singles(shape, method, values, recipe),
        *_combined(shape, method, values, recipe),
    ]:
        estimate = estimate_memory(shape, method, new_values, changed, devices=devices, sharding=sharding)
        estimate = replace(estimate, peak_bytes=round(estimate.peak_bytes * calibration))
        answer = verdict(estimate, vram_bytes)
        if answer.fits:
            found.setdefault(text, Change(text, changed, new_values, estimate.peak_bytes, answer.verdict))
    return list(found.values())


Step = tuple[str, "Recipe", Mapping[str, Any]]


def _singles(shape: ModelShape, method: Method, values: Mapping[str, Any], recipe: Recipe) -> Iterator[Step]:
    """Every single change, in the order of what it costs: time, then a little quality, then the task itself."""
    if recipe.micro_batch_size > 1:
        batch = recipe.micro_batch_size * recipe.gradient_accumulation_steps
        smallest = replace(recipe, micro_batch_size=1, gradient_accumulation_steps=batch)
        yield f"micro-batch 1 with {batch} accumulated", smallest, values
    if method.gradient_checkpointing and not recipe.gradient_checkpointing:
        yield "gradient checkpointing", replace(recipe, gradient_checkpointing=True), values
    if not method.saves_adapter:
        for name, text in (("adamw_8bit", "8-bit Adam"), ("adafactor", "Adafactor")):
            if recipe.optimizer != name:
                yield text, replace(recipe, optimizer=name), values
        if recipe.precision in ("bf16", "fp16"):
            yield "pure bf16 (no float32 master weights)", replace(recipe, precision="pure_bf16"), values
    if method.quantized_base == "possible" and recipe.quantization is None:
        yield "a 4-bit base", replace(recipe, quantization="nf4"), values
    rank = values.get("r")
    if isinstance(rank, int) and rank > 4:
        yield "rank 4", recipe, {**values, "r": 4}
    # Whisper hears one length, whatever the clip's
    fixed = shape.audio is not None and shape.audio.fixed_seconds is not None
    if recipe.max_length >= 2 * (1 if shape.audio else SHORTEST) and not fixed:
        shorter = recipe.max_length // 2
        text = f"inputs of {shorter} {shape.length_unit} instead of {recipe.max_length}"
        yield text, replace(recipe, max_length=shorter), values


def _combined(shape: ModelShape, method: Method, values: Mapping[str, Any], recipe: Recipe) -> Iterator[Step]:
    """Pairs: a micro-batch of 1 (or checkpointing, or both) with each further change."""
    base: list[tuple[str, Recipe]] = []
    smallest = recipe
    if recipe.micro_batch_size > 1:
        batch = recipe.micro_batch_size * recipe.gradient_accumulation_steps
        smallest = replace(recipe, micro_batch_size=1, gradient_accumulation_steps=batch)
        base.append(("micro-batch 1", smallest))
    if method.gradient_checkpointing and not recipe.gradient_checkpointing:
        prefix = "micro-batch 1 and " if smallest is not recipe else ""
        base.append((f"{prefix}gradient checkpointing", replace(smallest, gradient_checkpointing=True)))
    for prefix, start in base:
        for text, changed, new_values in _singles(shape, method, values, start):
            if text != "gradient checkpointing" or "checkpointing" not in prefix:
                yield f"{text} with {prefix}", changed, new_values
