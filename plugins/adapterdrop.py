"""AdapterDrop: Houlsby's adapters in the upper blocks alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, MemoryTraits, Reference, Structure, block_pattern, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class AdapterDrop(AdapterMethod):
    """Adapters are left out of the lower blocks, which several tasks can then share at inference."""

    name = "adapterdrop"
    title = "AdapterDrop"
    summary = "Adapters in the upper blocks alone: cheaper to train, and tasks can share the lower blocks."
    aliases = ("adapter_drop",)
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="sequential",
        insertions="upper layers",
        integration_form="direct addition",
        workspace="FFN; attention",
    )
    # Rücklé et al. 2021, section 3: the first five of twelve blocks left out cost 1 to 2 points
    references = (
        Reference(
            "AdapterDrop: On the Efficiency of Adapters in Transformers", "https://arxiv.org/abs/2010.11918", 2021
        ),
    )
    rate_from = "ours, as for Houlsby's adapters; Rücklé et al. 2021 train at 1e-4 for 20 epochs"
    formula = "(1 − dropped/L)·(N_att + N_ffn)·(2·d·b + b + d)"
    thesis = ("2.2.7", "2.3")
    limits = (
        "Cannot be merged: every call of the model pays for the adapters that there are.",
        "Inference is faster for many tasks at once only where the serving code shares the lower blocks among them.",
    )
    simplified = ("The specialised form, with a fixed number of blocks; the robust form draws it at each step.",)
    acts_on = frozenset({"attention", "ffn"})

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Those of the adapters, and the share of lower blocks without."""
        share = Hyperparameter(
            "dropped_share", 0.4, "float", "share of the lowest blocks of each stack without adapters", 0, 0.99,
            search=(0.25, 0.4, 0.5, 0.75),
        )  # fmt: skip
        return (self.bottleneck_setting(), self.activation_setting("gelu"), share, self.rate_setting())

    def _first(self, shape: ModelShape, stack: str, values: Mapping[str, Any]) -> int:
        """The lowest block of a stack that has adapters: one at least has, and one has none, unless the share is 0."""
        blocks = shape.encoder_layers if stack == "encoder" else shape.decoder_layers
        share = float(values["dropped_share"])
        return min(max(round(blocks * share), int(share > 0)), max(blocks - 1, 0))

    def sites(self, shape: ModelShape, values: Mapping[str, Any]) -> tuple[LinearModule, ...]:
        """The layers of the upper blocks."""
        found = super().sites(shape, values)
        return tuple(replace(site, count=site.count - self._first(shape, site.stack, values)) for site in found)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Blocks must have layers of their own."""
        if any(site.runs != site.count for site in super().sites(shape, values)):
            return f"the blocks of {shape.model_type} share their layers, so that none can be left out"
        return super().unsupported(shape, values)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """No gradient enters the lower blocks; those of a decoder it reaches on the way to its encoder."""
        lowest = self._first(shape, "encoder", values), self._first(shape, "decoder", values)
        quiet = (lowest[0], 0) if shape.architecture == "encoder-decoder" else lowest
        return replace(super().memory(shape, values, compute_bytes), quiet_blocks=quiet)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BottleneckConfig, on the upper blocks."""
        from peftselect import BottleneckConfig

        arguments = self.tuner_arguments(shape, values, context)
        upper = {
            "encoder": range(self._first(shape, "encoder", values), shape.encoder_layers),
            "decoder": range(self._first(shape, "decoder", values), shape.decoder_layers),
        }
        arguments["target_modules"] = block_pattern(shape, self.sites(shape, values), upper)
        return BottleneckConfig(bottleneck=int(values["bottleneck"]), activation=values["activation"], **arguments)


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer AdapterDrop."""
    return (AdapterDrop,)
