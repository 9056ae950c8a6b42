"""Base of peft's tuners of linear layers that are no variant of LoRA's: one update a layer, and what all layers share.

A plugin names the tuner's configuration class, gives its settings under the names which that class has for them, and
says in three formulas what a layer trains, saves, and makes autograd keep.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftselect.families.linear import LinearMethod, LowRankMethod, reads_encoder, shared_input
from peftselect.hyperparameter import Hyperparameter, learning_rate_setting
from peftselect.method import ALL_HEADS, MemoryTraits, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import LinearModule, ModelShape

Side = Literal["in", "out", "both"]
FLOAT32 = 4
#: settings of a method that its configuration does not take
_OURS = frozenset({"target_modules", "learning_rate"})


@dataclass(frozen=True)
class Kept:
    """What autograd keeps of one run of an adapted layer, in bytes.

    ``reads``: in what form the layer's input is kept, if it is: "float32" (over a base in 16 bits a copy for each
    layer; of float32 inputs one for all layers that read it), "own" (as it comes). ``a_position``: beside the input,
    for each position. ``a_step``: whatever the batch is. ``held``: tensors which the method adds untrained.
    """

    reads: Literal["", "own", "float32"] = ""
    a_position: float = 0.0
    a_step: float = 0.0
    held: float = 0.0


class UpdateMethod(LinearMethod):
    """A tuner of peft that gives each target layer an update of its own kind."""

    family: ClassVar[Any] = "reparameterized"
    structure: ClassVar[Structure] = LowRankMethod.structure
    heads: ClassVar[frozenset[str]] = ALL_HEADS | {"feature_extraction"}
    starts_as_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    adds_inference_cost: ClassVar[bool] = False
    judged: ClassVar[bool] = False
    #: name of the configuration class in peft
    tuner: ClassVar[str]
    #: peak learning rate by default
    rate: ClassVar[float]
    #: that of narrow models, where they want another
    narrow_rate: ClassVar[float | None] = None
    #: what the configuration is given beyond the settings
    constants: ClassVar[Mapping[str, Any]] = {}
    #: whether it takes the transposed layers of GPT-2
    takes_conv1d: ClassVar[bool] = False
    #: settings that must divide the widths of every target, and which of these
    divides: ClassVar[Mapping[str, Side]] = {}
    #: bytes of an element of what is kept under autocast (4: its operations run in float32)
    autocast_width: ClassVar[int] = 2

    @abstractmethod
    def settings(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Settings of the tuner under the names of its configuration."""

    @abstractmethod
    def layer_parameters(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Numbers trained in one layer."""

    @abstractmethod
    def kept(self, shape: ModelShape, linear: LinearModule, values: Mapping[str, Any], width: int) -> Kept:
        """What one layer keeps over activations of ``width`` bytes an element."""

    def shared_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers trained once for all layers."""
        return 0

    def layer_untrained(self, linear: LinearModule, values: Mapping[str, Any]) -> int:
        """Numbers that the file holds of one layer beside the trained ones."""
        return 0

    def shared_untrained(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers that the file holds once for all layers, untrained."""
        return 0

    def shared_held(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers that the model holds once for all layers, untrained."""
        return self.shared_untrained(shape, values)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The tuner's, the targets and the rate."""
        return (
            *self.settings(shape),
            self.target_setting(shape),
            learning_rate_setting(shape.hidden_size, self.rate, self.narrow_rate),
        )

    def divisor(self, shape: ModelShape, wanted: int, side: Side) -> int:
        """The largest number up to ``wanted`` that divides the widths of every default target."""
        words = self.target_setting(shape).default
        common = math.gcd(
            *(width for item in self.targets(shape, {"target_modules": words}) for width in _of(item, side))
        )
        return max(number for number in range(1, wanted + 1) if common % number == 0)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Layers that the tuner does not take, and widths that a setting does not divide."""
        if why := super().unsupported(shape, values):
            return why
        linears = self.targets(shape, values)
        if not self.takes_conv1d and any(item.conv1d for item in linears):
            return f"peft's {self.title} does not take the transposed linear layers of {shape.model_type}"
        for name, side in self.divides.items():
            for width in (width for item in linears for width in _of(item, side)):
                if width % int(values[name]):
                    return f"{name}={values[name]} does not divide {width}, the width of a target"
        return None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Of every layer, of all together, and the head."""
        own = sum(item.count * self.layer_parameters(item, values) for item in self.targets(shape, values))
        return own + self.shared_parameters(shape, values) + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """What is trained, and what could not be made again."""
        own = sum(item.count * self.layer_untrained(item, values) for item in self.targets(shape, values))
        return self.trainable_parameters(shape, values) + own + self.shared_untrained(shape, values)

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Weights of the targets, all of which a merged update changes, and the head."""
        linears = self.targets(shape, values)
        return sum(item.count * item.in_features * item.out_features for item in linears) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """What the layers keep, added up."""
        full = {True: 0.0, False: 0.0}
        low = {True: 0.0, False: 0.0}
        step, held = 0.0, float(FLOAT32 * self.shared_held(shape, values))
        seen: set[Any] = set()
        for linear in self.targets(shape, values):
            kept, side = self.kept(shape, linear, values, compute_bytes), reads_encoder(linear)
            step += linear.runs * kept.a_step
            held += linear.count * kept.held
            full[side] += linear.runs * kept.a_position
            low[side] += linear.runs * kept.a_position * self.autocast_width / FLOAT32
            if kept.reads:
                low[side] += linear.runs * linear.in_features * self.autocast_width
                width = FLOAT32 if kept.reads == "float32" else compute_bytes
                tensor = shared_input(linear) if width == compute_bytes else None
                if tensor is None or tensor not in seen:
                    full[side] += linear.runs * linear.in_features * width
                seen.add(tensor)
        return MemoryTraits(
            (full[True], full[False]),
            kept_under_autocast=(low[True], low[False]),
            kept_bytes_per_step=step,
            held_bytes=held,
        )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """The tuner's configuration."""
        import peft

        made, linears = getattr(peft, self.tuner), self.targets(shape, values)
        options = {name: value for name, value in values.items() if name not in _OURS}
        if "fan_in_fan_out" in made.__dataclass_fields__:
            options["fan_in_fan_out"] = any(item.conv1d for item in linears) and not context.quantized
        return made(
            **options,
            **self.constants,
            target_modules=self.peft_targets(shape, linears),
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


def _of(linear: LinearModule, side: Side) -> tuple[int, ...]:
    """Widths of a layer that a setting may have to divide."""
    widths = {"in": (linear.in_features,), "out": (linear.out_features,)}
    return widths.get(side, (linear.in_features, linear.out_features))
