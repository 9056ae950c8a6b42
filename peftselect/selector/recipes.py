"""The choice of a recipe: the cheapest change of a plain run that makes a method fit the budget."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import InputError, UnknownNameError
from peftselect.memory.closed_form import MemoryEstimate, Verdict, estimate_memory, verdict
from peftselect.memory.states import COMPUTE_BYTES, OPTIMIZER_BYTES
from peftselect.method import Recipe, resolve_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftselect.method import Method
    from peftselect.problem import Problem

#: optimizer steps that a run of unknown length should see: more epochs for few examples, fewer for many
AIMED_STEPS = 1500
MOST_EPOCHS = 20
#: where the number of examples is not known
DEFAULT_EPOCHS = 3
Quantization = Literal["int8", "nf4"]
RECIPE_FIELDS: dict[str, Any] = {item.name: item for item in fields(Recipe)}
_CHOICES: dict[str, tuple[str, ...]] = {
    "precision": tuple(COMPUTE_BYTES),
    "optimizer": tuple(OPTIMIZER_BYTES),
    "quantization": ("none", "int8", "nf4"),
}
_SWITCHES = ("gradient_checkpointing", "packing", "group_by_length")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NUMBERS: dict[str, type[int] | type[float]] = {
    "micro_batch_size": int,
    "gradient_accumulation_steps": int,
    "max_length": int,
    "max_target_length": int,
    "learning_rate": float,
    "num_train_epochs": float,
    "warmup_ratio": float,
    "weight_decay": float,
}


@dataclass(frozen=True)
class Settings:
    """Everything that was set before the search: the method's values, recipe fields, and who set each."""

    values: Mapping[str, Any]
    recipe: Mapping[str, Any]
    set_by: Mapping[str, str]


@dataclass(frozen=True)
class Fit:
    """A recipe with its price; ``changes`` names what had to be done to make it fit, cheapest first."""

    recipe: Recipe
    memory: MemoryEstimate
    verdict: Verdict
    changes: tuple[str, ...] = ()


def settle(
    problem: Problem, method: Method, proposals: Mapping[str, tuple[Any, str]], overrides: Mapping[str, Any]
) -> Settings:
    """Merge what rules propose (value and source by name) with what the user sets; the user has the last word.

    Names of the method's hyperparameters go to its values, names of recipe fields to the recipe; UnknownNameError for
    a name of neither kind among ``overrides``. A proposal that this method has no use for is passed over.
    """
    known = {setting.name for setting in method.hyperparameters(problem.shape)}
    values: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    set_by: dict[str, str] = {}
    for name, (value, source) in proposals.items():
        if name in known or name in RECIPE_FIELDS:
            (values if name in known else recipe)[name] = value
            set_by[name] = source
    for name, value in overrides.items():
        if name in known:
            values[name] = value
        elif name in RECIPE_FIELDS:
            recipe[name] = _parse(name, value)
        else:
            raise UnknownNameError(f"setting of {method.name}", name, sorted({*known, *RECIPE_FIELDS}))
        set_by[name] = "you"
    return Settings(resolve_values(method, problem.shape, values), recipe, set_by)


def _parse(name: str, value: Any) -> Any:
    """A recipe field from the command line's text."""
    if name in _CHOICES and value is not None and value not in _CHOICES[name]:
        raise InputError(f"{name}={value!r} is not a choice", f"choose from {', '.join(_CHOICES[name])}")
    if name == "quantization" and value == "none":
        return None
    if not isinstance(value, str) or name not in {*_NUMBERS, *_SWITCHES}:
        return value
    try:
        if name in _SWITCHES:
            return _BOOLEANS[value.lower()]
        number = _NUMBERS[name](value)
    except (ValueError, KeyError) as error:
        raise InputError(f"{name}={value!r} cannot be read", "give a number (true or false for a switch)") from error
    if not 0 <= number < float("inf") or (_NUMBERS[name] is int and number < 1 and name != "max_target_length"):
        raise InputError(f"{name}={value!r} is out of range", "give a positive number")
    return number


def epochs(problem: Problem) -> float:
    """Epochs so that training takes about :data:`AIMED_STEPS` optimizer steps, between 1 and :data:`MOST_EPOCHS`.

    Early stopping ends a run that has learnt what it can, so that few data get the chance of many passes.
    """
    examples = problem.data.num_examples
    if not examples:
        return DEFAULT_EPOCHS
    return float(min(max(round(AIMED_STEPS * problem.batch_size / examples), 1), MOST_EPOCHS))


def plain_recipe(problem: Problem, method: Method, settings: Settings) -> Recipe:
    """The recipe before anything is done about memory: the whole batch at once, no checkpointing."""
    precision: Any = problem.precision or ("fp32" if problem.hardware.name == "cpu" else "bf16")
    recipe = Recipe(
        precision=precision,
        quantization=base_storages(problem, method)[0],
        micro_batch_size=max(problem.batch_size // problem.hardware.devices, 1),
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        learning_rate=float(settings.values["learning_rate"]),
        num_train_epochs=epochs(problem),
        max_length=_room(problem, method, settings),
        max_target_length=problem.max_target_length,
    )
    return replace(recipe, **settings.recipe)


def _room(problem: Problem, method: Method, settings: Settings) -> int:
    """The longest input: virtual tokens take positions which the model's position table must have."""
    positions = problem.shape.max_positions
    if positions is None:
        return problem.max_length
    return max(min(problem.max_length, positions - method.prepended_positions(settings.values)), 1)


def base_storages(problem: Problem, method: Method, twin: str | None = None) -> tuple[Quantization | None, ...]:
    """How the frozen base may be stored, the plainest first.

    ``twin`` is a method which is this one on a quantised base (QLoRA for LoRA): then this one stays plain.
    """
    forced = problem.quantization
    if forced is None and "quantized-base" in problem.priorities.must:
        forced = "nf4"
    if forced == "int8" and method.quantized_base != "no":
        return ("int8",)
    if method.quantized_base == "required" or (forced == "nf4" and method.quantized_base == "possible"):
        return ("nf4",)
    if forced is not None or method.quantized_base == "no" or twin or "merge" in problem.priorities.must:
        return (None,)
    return (None, "nf4")


def search(problem: Problem, method: Method, settings: Settings, twin: str | None = None) -> Fit:
    """The first recipe that fits; failing that the first borderline one; failing that the smallest.

    The order is that of the price in time and quality: a smaller micro-batch (the accumulation keeps the effective
    batch), then gradient checkpointing (about a third more time), then a 4-bit base.
    """
    borderline: Fit | None = None
    smallest: Fit | None = None
    for recipe in _ladder(problem, method, settings, twin):
        fit = _price(problem, method, settings, recipe)
        if fit.verdict.verdict == "fits":
            return fit
        if fit.verdict.verdict == "borderline":
            borderline = borderline or fit
        if smallest is None or fit.memory.peak_bytes < smallest.memory.peak_bytes:
            smallest = fit
    assert smallest is not None  # the ladder has at least one rung
    return borderline or smallest


def comparable_bytes(problem: Problem, method: Method, settings: Settings) -> int:
    """Peak of the plain recipe at a micro-batch of one: the method's own thirst, not how far it fills the budget."""
    recipe = replace(plain_recipe(problem, method, settings), micro_batch_size=1, gradient_checkpointing=False)
    return _price(problem, method, settings, recipe).memory.peak_bytes


def _ladder(problem: Problem, method: Method, settings: Settings, twin: str | None) -> Iterator[Recipe]:
    plain = plain_recipe(problem, method, settings)
    fixed = settings.recipe
    storages = (plain.quantization,) if "quantization" in fixed else base_storages(problem, method, twin)
    switches = (plain.gradient_checkpointing,) if "gradient_checkpointing" in fixed else (False, True)
    per_device = max(problem.batch_size // problem.hardware.devices, 1)
    sizes = [size for size in range(per_device, 0, -1) if per_device % size == 0]
    if "micro_batch_size" in fixed:
        sizes = [plain.micro_batch_size]
    for storage in storages:
        for checkpointing in switches:
            if checkpointing and not method.gradient_checkpointing:
                continue
            for size in sizes:
                steps = fixed.get("gradient_accumulation_steps", max(per_device // size, 1))
                yield replace(
                    plain,
                    quantization=storage,
                    gradient_checkpointing=checkpointing,
                    micro_batch_size=size,
                    gradient_accumulation_steps=steps,
                )


def _price(problem: Problem, method: Method, settings: Settings, recipe: Recipe) -> Fit:
    machine = problem.hardware
    estimate = estimate_memory(
        problem.shape, method, settings.values, recipe, devices=machine.devices, sharding=machine.sharding
    )
    plain = plain_recipe(problem, method, settings)
    changes = []
    if recipe.micro_batch_size != plain.micro_batch_size:
        changes.append(f"micro-batch {recipe.micro_batch_size} with {recipe.gradient_accumulation_steps} accumulated")
    if recipe.gradient_checkpointing and not plain.gradient_checkpointing:
        changes.append("gradient checkpointing")
    if recipe.quantization != plain.quantization:
        changes.append(f"the base held in {recipe.quantization}")
    return Fit(recipe, estimate, verdict(estimate, machine.vram_bytes), tuple(changes))
