"""One training run to price: model, method (or raw PEFT configuration), values, recipe and machine, all checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftselect.base_models import resolve_base_model
from peftselect.errors import InputError, UnsupportedError
from peftselect.memory.states import OPTIMIZER_BYTES
from peftselect.method import Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.question import one_of
from peftselect.shapes import read_shape, shape_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Method
    from peftselect.problem import BaseModel, Hardware
    from peftselect.shape import ModelShape
    from peftselect.task import Task

OPTIMIZERS: tuple[str, ...] = tuple(OPTIMIZER_BYTES)
PRECISIONS: tuple[str, ...] = ("bf16", "fp16", "fp32", "pure_bf16")
QUANTIZATIONS: tuple[str, ...] = ("none", "int8", "nf4")
#: without a task: the usual length of a training example
DEFAULT_LENGTH, DEFAULT_TARGET_LENGTH = 512, 128
#: beyond these nobody trains on one device: a slip of the finger, not a question
MOST_ROWS, MOST_TOKENS = 65_536, 4_194_304


@dataclass(frozen=True)
class Setting:
    """What is priced. ``method`` is None under a raw ``peft_config``, whose adapter only a trace can price."""

    base: BaseModel
    shape: ModelShape
    method: Method | None
    values: Mapping[str, Any]
    recipe: Recipe
    machine: Hardware
    peft_config: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The method's name, or the configuration's type in peft's own words."""
        return self.method.name if self.method else str((self.peft_config or {}).get("peft_type", "adapter")).lower()

    def changed(self, **fields: Any) -> Setting:
        """The same with other fields of the recipe."""
        return replace(self, recipe=replace(self.recipe, **fields))


def settle(
    model: str,
    method: str | None,
    machine: Hardware,
    *,
    peft_config: Mapping[str, Any] | None = None,
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
) -> Setting:
    """Check every argument; InputError (or a child) names the one that cannot be used.

    ``batch_size`` is one device's micro-batch; lengths are tokens, by default those of ``task``, and inputs are cut at
    the model's last position.
    """
    if (method is None) == (peft_config is None):
        raise InputError("name one method, or one PEFT configuration", "--method NAME or --peft-config FILE")
    base = resolve_base_model(model)
    wanted = host().task(task) if task else None
    one_of("optimizer", optimizer, OPTIMIZERS)
    one_of("precision", precision, PRECISIONS)
    one_of("quantization", quantization or "none", QUANTIZATIONS)
    chosen = host().method(method) if method is not None else None
    shape = _shape(base, wanted, num_labels, chosen)
    values: dict[str, Any] = {}
    if chosen is not None:
        _serves(chosen, base, shape)
        values = resolve_values(chosen, shape, settings)
        if reason := chosen.unsupported(shape, values):
            raise UnsupportedError(
                f"{chosen.title} cannot serve {base.name}: {reason}", "choose another method or model"
            )
        if gradient_checkpointing and not chosen.gradient_checkpointing:
            raise UnsupportedError(f"{chosen.title} does not work with gradient checkpointing", "leave it off")
    elif settings:
        raise InputError("--set is for a method's settings", "change the PEFT configuration itself")
    length, target = _lengths(shape, wanted, max_length, max_target_length)
    recipe = Recipe(
        precision=precision,  # type: ignore[arg-type]  # checked above
        quantization=_storage(chosen, quantization),  # type: ignore[arg-type]
        micro_batch_size=_within("batch size", batch_size, MOST_ROWS),
        gradient_accumulation_steps=_within("gradient accumulation", gradient_accumulation_steps, MOST_ROWS),
        gradient_checkpointing=gradient_checkpointing,
        learning_rate=float(values.get("learning_rate", 1e-4)),
        num_train_epochs=1.0,
        max_length=length,
        max_target_length=target,
        optimizer=optimizer,
    )
    return Setting(base, shape, chosen, values, recipe, machine, peft_config)


def _shape(base: BaseModel, task: Task | None, num_labels: int, method: Method | None) -> ModelShape:
    labels = _within("number of labels", num_labels, MOST_ROWS)
    shape = read_shape(base.config, num_labels=labels)
    if task is None:
        only_one = method is not None and len(method.heads) == 1  # of several heads none is guessed
        return shape_for(method, base.config, labels) if method is not None and only_one else shape
    head = task.head_for(shape.architecture, method.heads if method else ())
    if head is None:
        able = ", ".join(sorted(task.heads))
        raise InputError(f"{base.name} ({shape.architecture}) cannot serve {task.name}", f"it takes: {able}")
    return read_shape(base.config, head, labels, new_pooler=base.lacks_pooler)


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
    room = shape.longest_input
    usual = task.default_max_length if task else DEFAULT_LENGTH
    length = _within("max length", usual if max_length is None else max_length, MOST_TOKENS)
    if max_length is not None and room is not None and length > room:
        end = f"it hears {room} s" if shape.audio else f"positions end at {room}"
        raise InputError(f"a length of {length} is more than {shape.model_type} can read", end)
    length = min(length, room) if room is not None else length
    head = shape.head.kind
    writes = head in ("seq2seq_lm", "speech_seq2seq") or (task is not None and task.generates(head))
    if not writes and max_target_length is None:
        return length, 0
    default = task.default_max_target_length if task else DEFAULT_TARGET_LENGTH
    target = default if max_target_length is None else max_target_length
    return length, _within("max target length", target, MOST_TOKENS)


def _storage(method: Method | None, quantization: str | None) -> str | None:
    if quantization == "none":
        quantization = None
    if method is None:
        return quantization
    if quantization is None and method.quantized_base == "required":
        return "nf4"
    if quantization is not None and method.quantized_base == "no":
        raise UnsupportedError(f"{method.title} cannot train over a quantised base", "take --quantization none")
    return quantization


def _within(name: str, number: int, most: int) -> int:
    if number < 1:
        raise InputError(f"{name} {number} is too small", "give 1 or more")
    if number > most:
        raise InputError(f"{name} {number} is beyond what one device trains on", f"give at most {most}")
    return number
