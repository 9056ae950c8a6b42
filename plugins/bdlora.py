"""BD-LoRA: LoRA with block-diagonal factors, which several devices can serve without talking to one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import LinearModule, ModelShape

#: layers whose inputs are spread over the devices, so that their first factor is cut: all others cut the second
_ROWS = frozenset({"attention_output", "ffn_out"})


class BdLora(LowRankMethod):
    """B of the layers that open a part of the network, and A of those that close it, are block-diagonal."""

    name = "bdlora"
    title = "BD-LoRA"
    summary = "LoRA with one factor of each layer block-diagonal, for fast serving on several devices."
    aliases = ("block_diagonal_lora", "bd_lora")
    # blocks as in the PEFT project's runs; the rank wants to be larger than LoRA's by what the blocks save
    references = (
        Reference(
            "Block-Diagonal LoRA for Eliminating Communication Overhead in Tensor Parallel LoRA Serving",
            "https://arxiv.org/abs/2510.23346",
            2025,
        ),
    )
    rate_from = "LoRA's; the PEFT project's runs have 1e-4, as for LoRA"
    formula = "Σ (r·in + r·out/K) over the target layers (r·in/K + r·out of those that close a part), K = nblocks"
    records_like = "lora"
    judged = False
    quantized_base = "no"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, and the blocks."""
        blocks = Hyperparameter("nblocks", 2, "int", "blocks: as many as devices serve it", 1, 64, search=(2, 4, 8))
        return (*super().hyperparameters(shape), blocks)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Plain layers whose names tell which factor is cut, and sizes that can be cut."""
        if why := super().unsupported(shape, values):
            return why
        linears, blocks = self.targets(shape, values), int(values["nblocks"])
        if any(item.conv1d for item in linears):
            return f"peft's BD-LoRA does not take the transposed linear layers of {shape.model_type}"
        first, second = self._names(linears)
        # peft looks for these names anywhere in a layer's own
        if any(one in other or other in one for one in first for other in second):
            return f"the layers of {shape.model_type} cannot be told apart by their names, as peft does"
        for item in linears:
            cut = item.in_features if item.role in _ROWS else item.out_features
            if int(values["r"]) % blocks or cut % blocks:
                return f"nblocks={blocks} does not divide r={values['r']} and {cut}, a width of a target"
        return None

    def _names(self, linears: Sequence[LinearModule]) -> tuple[list[str], list[str]]:
        """Names of layers whose first, and whose second, factor is cut."""
        first = sorted({item.name for item in linears if item.role in _ROWS})
        return first, sorted({item.name for item in linears if item.role not in _ROWS})

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The blocks of one factor, the whole of the other, and the head."""
        rank, blocks, total = int(values["r"]), int(values["nblocks"]), shape.head.parameters
        for item in self.targets(shape, values):
            inside, outside = item.in_features, item.out_features
            cut, whole = (inside, outside) if item.role in _ROWS else (outside, inside)
            total += item.count * rank * (cut // blocks + whole)
        return total

    def variant(self, shape: ModelShape, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Which layers have which factor cut."""
        from peft import BdLoraConfig

        first, second = self._names(self.targets(shape, values))
        return {
            "use_bdlora": BdLoraConfig(
                target_modules_bd_a=first or None, target_modules_bd_b=second or None, nblocks=int(values["nblocks"])
            )
        }


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer BD-LoRA."""
    return (BdLora,)
