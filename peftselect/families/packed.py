"""Methods that hold the base's weights in few bits themselves: what these take, beside which factors are trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.families.linear import LinearMethod, LowRankMethod
from peftselect.hyperparameter import Hyperparameter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import MemoryTraits
    from peftselect.shape import LinearModule, ModelShape

#: NormalFloat blocks whose scales share a float32 scale
SCALE_BLOCK = 256


def code_bytes(number: int, bits: int) -> int:
    """Bytes of ``number`` codes: each power of two in ``bits`` is packed apart, so that it fills bytes evenly."""
    return sum(-(-(number * width) // 8) for width in (8, 4, 2, 1) if bits & width)


def normal_bytes(linear: LinearModule, bits: int, block: int) -> int:
    """Bytes of one matrix in NormalFloat: codes, a byte a block, float32 scales of those, and the levels."""
    number = linear.in_features * linear.out_features
    blocks = -(-number // block)
    return code_bytes(number, bits) + blocks + 4 * -(-blocks // SCALE_BLOCK) + 4 * (1 << bits)


def integer_bytes(linear: LinearModule, bits: int, block: int, compute_bytes: int) -> int:
    """Bytes of one integer matrix: codes, and for each group (0: row) a zero point and a scale as wide as a weight."""
    groups = linear.in_features // block if block else 1
    codes = code_bytes(linear.in_features * linear.out_features, bits)
    return codes + linear.out_features * groups * (1 + compute_bytes)


class PackedMethod(LinearMethod):
    """A method whose target layers hold their weights in few bits."""

    quantized_base: ClassVar[Any] = "no"
    multi_adapter: ClassVar[bool] = False
    default_bits: ClassVar[int] = 4
    #: bytes a weight of the largest matrix that pass while it is packed, beside what the base held
    packing_bytes_per_weight: ClassVar[float] = 12.0
    #: a sentence for the cards of all
    loaded_whole: ClassVar[str] = "The base is loaded in full before it is packed: the device must hold it so once."

    def bits_setting(self) -> Hyperparameter:
        """How many bits a weight takes."""
        return Hyperparameter("bits", self.default_bits, "int", "bits of a weight of the base", 2, 8, search=(2, 3, 4))

    def ragged(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """One sentence where groups of ``group_size`` do not fill every row; None where they do, or a row is one."""
        group = int(values["group_size"])
        if group and any(item.in_features % group for item in self.targets(shape, values)):
            return f"groups of {group} do not fill the inputs of every target"
        return None

    def matrix_bytes(self, linear: LinearModule, values: Mapping[str, Any], compute_bytes: int) -> int:
        """Bytes of one packed matrix; overridden by every method."""
        raise NotImplementedError

    def packed(
        self, traits: MemoryTraits, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int
    ) -> MemoryTraits:
        """``traits`` with what the packed targets take, and what passes while they are packed and unpacked."""
        linears = self.targets(shape, values)
        sizes = [item.in_features * item.out_features for item in linears]
        return replace(
            traits,
            packed_weights=sum(item.count * size for item, size in zip(linears, sizes, strict=True)),
            packed_bytes=sum(item.count * self.matrix_bytes(item, values, compute_bytes) for item in linears),
            # codes as numbers of 32 bits, or in steps and scaled, at a time
            unpacking_bytes=max(sizes) * (4 + compute_bytes),
            packing_bytes=round(max(sizes) * self.packing_bytes_per_weight),
        )


class PackedLowRankMethod(PackedMethod, LowRankMethod):
    """Low-rank updates over packed weights. The base is not the one that was given, from the first step on."""

    starts_as_base: ClassVar[bool] = False
    default_targets: ClassVar[str] = "all-linear"
    base_learning_rate: ClassVar[float] = 3.5e-4
    acts_on: ClassVar[frozenset[str]] = frozenset({"attention", "ffn"})

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, dropout, bits, targets and rate."""
        kept = [item for item in super().hyperparameters(shape) if item.name != "use_rslora"]
        return (*kept, self.bits_setting())

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """That of a plain update of this rank and scale."""
        return super().learning_rate({**values, "use_rslora": False})

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The inputs of both factors, over packed weights."""
        return self.packed(super().memory(shape, values, compute_bytes), shape, values, compute_bytes)

    def rank_too_large(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """One sentence where the factors would hold more singular values than there are."""
        if any(int(values["r"]) > min(item.in_features, item.out_features) for item in self.targets(shape, values)):
            return f"r={values['r']} is more than the singular values of a target"
        return None

    def settings(self, shape: ModelShape, values: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """What every tuner of this kind is told."""
        return {
            "r": int(values["r"]),
            "scale": float(values["lora_alpha"]) / int(values["r"]),
            "dropout": float(values["lora_dropout"]),
            "bits": int(values["bits"]),
            "target_modules": self.peft_targets(shape, self.targets(shape, values)),
            "task_type": context.task_type,
            "modules_to_save": context.modules_to_save,
        }
