"""Base class of the methods that put small networks after or beside the sub-layers of every block."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.families.linear import path_pattern, reads_encoder
from peftselect.hyperparameter import Hyperparameter
from peftselect.method import MemoryTraits, Method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import LinearModule, ModelShape

#: where a feed-forward part begins
FIRST_OF_FFN = ("ffn_gate", "ffn_in", "ffn_gate_in")
#: activations whose gradient needs the output alone, which the next matrix keeps anyway
_ONE_TENSOR = frozenset({"relu", "tanh", "sigmoid"})


class AdapterMethod(Method):
    """A network of some kind at the end of each sub-layer: its sites are the last linear layers of these.

    A subclass says with ``roles`` which sub-layers have one and with :meth:`site_parameters` how large it is.
    """

    family: ClassVar[Any] = "additive"
    quantized_base: ClassVar[Any] = "possible"
    starts_as_base: ClassVar[bool] = True
    #: roles of the layers whose output it changes
    roles: ClassVar[tuple[str, ...]] = ("attention_output", "ffn_out")
    default_bottleneck: ClassVar[int] = 64
    default_learning_rate: ClassVar[float] = 1e-3

    def bottleneck_setting(self) -> Hyperparameter:
        """The inner width."""
        return Hyperparameter(
            "bottleneck", self.default_bottleneck, "int", "inner width of an adapter", 1, 4096,
            search=(16, 64, 256), log=True,
        )  # fmt: skip

    def activation_setting(self, default: str = "relu") -> Hyperparameter:
        """The inner activation."""
        choices = ("relu", "gelu", "gelu_new", "silu", "tanh")
        return Hyperparameter("activation", default, "str", "inner activation of an adapter", choices=choices)

    def rate_setting(self) -> Hyperparameter:
        """The learning rate."""
        return Hyperparameter(
            "learning_rate", self.default_learning_rate, "float", "peak learning rate", 1e-6, 1.0, log=True
        )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, activation and rate."""
        return (self.bottleneck_setting(), self.activation_setting(), self.rate_setting())

    def sites(self, shape: ModelShape, values: Mapping[str, Any]) -> tuple[LinearModule, ...]:
        """The layers whose output is changed."""
        return shape.by_role(*self.roles)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Each kind of sub-layer must end in a linear layer."""
        missing = [role for role in self.roles if not shape.by_role(role)]
        if missing:
            return f"{shape.model_type} has no linear layer that plays the part of {missing[0]}"
        return None

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """Parameters of the network at one site."""
        width, inner = site.out_features, int(values["bottleneck"])
        return 2 * width * inner + inner + width

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of every site, and the head."""
        sites = self.sites(shape, values)
        return sum(site.count * self.site_parameters(site, values) for site in sites) + shape.head.parameters

    def kept_numbers(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """Numbers that autograd keeps of one site for a position: what each matrix reads, and the activation."""
        inner = int(values["bottleneck"])
        return site.out_features + inner * (1 if values.get("activation", "relu") in _ONE_TENSOR else 2)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """What the sites keep: in float32, over a base in 16 bits on a copy, under autocast in 16 bits."""
        kept = {True: 0.0, False: 0.0}
        for site in self.sites(shape, values):
            kept[reads_encoder(site)] += site.runs * self.kept_numbers(site, values)
        return MemoryTraits(
            kept_bytes_per_token=(4 * kept[True], 4 * kept[False]),
            kept_under_autocast=(2 * kept[True], 2 * kept[False]),
        )

    def tuner_arguments(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """What every tuner configuration is given."""
        return {
            "target_modules": path_pattern(site.path for site in self.sites(shape, values)),
            "task_type": context.task_type,
            "modules_to_save": context.modules_to_save,
        }


def first_of_ffn(shape: ModelShape) -> str:
    """A pattern of the layer with which each feed-forward part begins."""
    return path_pattern(_first(shape.by_role(*FIRST_OF_FFN)))


def block_pattern(shape: ModelShape, linears: Iterable[LinearModule], blocks: Mapping[str, Iterable[int]]) -> str:
    """A pattern of these layers in the blocks of each stack whose indices ``blocks`` has.

    A block's index is the first number in a module's name (T5 numbers the sub-layers of a block as well); the stacks of
    an encoder-decoder are told apart by their names.
    """
    patterns = []
    for stack, indices in blocks.items():
        paths = sorted({re.escape(linear.path) for linear in linears if linear.stack == stack})
        numbers = "|".join(map(str, indices))
        if paths and numbers:
            inside = rf"(?:.*\.)?{stack}\." if shape.architecture == "encoder-decoder" else ""
            patterns.append(rf"{inside}(?:(?!\d+\.)[^.]+\.)*(?:{numbers})\.(?:.+\.)?(?:{'|'.join(paths)})")
    return "|".join(patterns)


def _first(linears: Iterable[LinearModule]) -> list[str]:
    """Of several layers that read the same input (a gate and its values) one for each stack."""
    found: dict[tuple[str, str], str] = {}
    for linear in linears:
        found.setdefault((linear.stack, linear.path.rpartition(".")[0]), linear.path)
    return list(found.values())
