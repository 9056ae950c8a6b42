"""What a run does when memory runs out: the next cheaper recipe, until none is left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftselect.errors import NothingFitsError
from peftselect.memory.closed_form import estimate_memory, verdict
from peftselect.question import under
from peftselect.selector.recipes import base_storages

if TYPE_CHECKING:
    from peftselect.method import Candidate, Recipe
    from peftselect.selector import RankedCandidate
    from peftselect.training.plan import RunPlan


class RanOutError(NothingFitsError):
    """A real allocation failed, on the device or (on a CPU) in RAM."""

    run_status = "oom"


def ran_out(plan: RunPlan) -> RanOutError:
    """The error for a run that failed as ``plan`` has it, with what was tried before."""
    tried = f", at last with {_layout(plan.chosen.candidate)}" if plan.trail else ""
    hint = "a smaller --max-length, a smaller model, or a smaller --vram to be advised by"
    return RanOutError(f"the device ran out of memory{tried}", hint)


def cheaper(plan: RunPlan) -> RunPlan | None:
    """The plan with the next cheaper recipe, None where there is none; what was set by hand stays as it is.

    In the order of the price in time and quality: half the micro-batch with doubled accumulation (the same effective
    batch), gradient checkpointing, a 4-bit base, and the best of the recommended methods that needs less.
    """
    chosen = _lighter_recipe(plan) or _runner_up(plan)
    if chosen is None:
        return None
    before, after = plan.chosen.candidate, chosen.candidate
    name = "" if before.method is after.method else f"{after.method.title}, "
    step = f"out of memory with {_layout(before)}: went on with {name}{_layout(after)}"
    problem = under(plan.problem, after.method)
    return replace(plan, problem=problem, chosen=chosen, trail=(*plan.trail, step), notes=(*plan.notes, step))


def goes_on(before: RunPlan, after: RunPlan) -> bool:
    """Whether checkpoints of one plan serve the other: the same method on the same base."""
    old, new = before.chosen.candidate, after.chosen.candidate
    return old.method is new.method and old.recipe.quantization == new.recipe.quantization


def _lighter_recipe(plan: RunPlan) -> RankedCandidate | None:
    chosen, problem = plan.chosen, plan.problem
    candidate = chosen.candidate
    recipe = _next(plan, candidate)
    if recipe is None:
        return None
    memory = estimate_memory(
        problem.shape, candidate.method, candidate.values, recipe, devices=problem.hardware.devices
    )
    fits = verdict(memory, problem.hardware.vram_bytes)
    return replace(chosen, candidate=replace(candidate, recipe=recipe), memory=memory, verdict=fits)


def _next(plan: RunPlan, candidate: Candidate) -> Recipe | None:
    recipe, method = candidate.recipe, candidate.method
    fixed = {name for name, who in candidate.set_by.items() if who == "you"}
    if recipe.micro_batch_size > 1 and "micro_batch_size" not in fixed:
        size = max(part for part in range(1, recipe.micro_batch_size) if recipe.micro_batch_size % part == 0)
        times = recipe.micro_batch_size // size
        accumulation = recipe.gradient_accumulation_steps * times
        return replace(recipe, micro_batch_size=size, gradient_accumulation_steps=accumulation)
    if not recipe.gradient_checkpointing and method.gradient_checkpointing and "gradient_checkpointing" not in fixed:
        return replace(recipe, gradient_checkpointing=True)
    if recipe.quantization is None and "quantization" not in fixed and "nf4" in base_storages(plan.problem, method):
        return replace(recipe, quantization="nf4")
    return None


def _runner_up(plan: RunPlan) -> RankedCandidate | None:
    """The best method that is left and needs less, in the smallest layout that was tried."""
    tried = plan.chosen.candidate.recipe
    for item in plan.runners_up:
        if item.comparable_bytes < plan.chosen.comparable_bytes:
            candidate = item.candidate
            recipe = replace(
                candidate.recipe,
                micro_batch_size=tried.micro_batch_size,
                gradient_accumulation_steps=tried.gradient_accumulation_steps,
                gradient_checkpointing=tried.gradient_checkpointing and candidate.method.gradient_checkpointing,
            )
            return replace(item, candidate=replace(candidate, recipe=recipe))
    return None


def _layout(candidate: Candidate) -> str:
    recipe = candidate.recipe
    words = [f"micro-batch {recipe.micro_batch_size}"]
    words += [f"{recipe.gradient_accumulation_steps} accumulated"] * (recipe.gradient_accumulation_steps > 1)
    words += ["gradient checkpointing"] * recipe.gradient_checkpointing
    words += [f"the base held in {recipe.quantization}"] * (recipe.quantization is not None)
    return ", ".join(words)
