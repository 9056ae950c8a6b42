"""Res-Tuning: small tuners beside attention, beside the feed-forward part, and beside the whole block."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, SideMethod, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, MemoryTraits, ModelShape

#: what reads the input of a sub-layer, by the role of the layer that ends it
BEGINS = {"attention_output": ("query", "query_key_value"), "ffn_out": ("ffn_gate", "ffn_in", "ffn_gate_in")}


class ResTuning(AdapterMethod):
    """Three tuners a block, each with a shortcut of its own around an operation of the base."""

    name = "res_tuning"
    title = "Res-Tuning"
    summary = "Puts small tuners in parallel to attention, to the feed-forward part and to the whole block."
    aliases = ("res-tuning", "restuning")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="direct addition",
        workspace="attention; FFN; block",
    )
    references = (
        Reference(
            "Res-Tuning: A Flexible and Efficient Tuning Paradigm via Unbinding Tuner from Backbone",
            "https://arxiv.org/abs/2310.19859",
            2023,
        ),
    )
    rate_from = "Jiang et al. 2023, section 4 and appendix: searched around 1e-3, on ViT"
    formula = "(N_att + N_ffn + L)·(2·d·b + b + d)"
    thesis = ("2.3",)
    limits = ("Cannot be merged: every call of the model pays for the tuners.",)
    simplified = ("All tuners are bottlenecks (Res-Adapters); the paper mixes them with prefixes and prompts.",)
    acts_on = frozenset({"attention", "ffn"})
    judged = False
    default_bottleneck = 32

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, activation and rate."""
        return (self.bottleneck_setting(), self.activation_setting("gelu"), self.rate_setting())

    def begins(self, shape: ModelShape) -> dict[str, str]:
        """The layer that reads a sub-layer's input, by the path of the one that ends it."""
        found = {}
        for end in shape.by_role(*self.roles):
            like = (end.stack, end.cross_attention)
            first = [x for x in shape.by_role(*BEGINS[end.role]) if (x.stack, x.cross_attention) == like]
            if first:
                found[end.path] = first[0].path
        return found

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Blocks must be modules of their own, and each sub-layer begin with a linear layer."""
        if why := SideMethod.shared_blocks(shape):
            return why
        missing = {end.path for end in shape.by_role(*self.roles)} - set(self.begins(shape))
        if missing:
            return f"{shape.model_type} has no linear layer that reads the input of {sorted(missing)[0]}"
        return super().unsupported(shape, values)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of the sub-layers, one more a block, and the head."""
        width, inner = shape.hidden_size, int(values["bottleneck"])
        return super().trainable_parameters(shape, values) + shape.num_layers * (2 * width * inner + inner + width)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """What tuners of sub-layers keep, and as much for the blocks."""
        traits = super().memory(shape, values, compute_bytes)
        a_block = shape.hidden_size + 2 * int(values["bottleneck"])
        more = (shape.encoder_layers * a_block, shape.decoder_layers * a_block)
        kept, low = traits.kept_bytes_per_token, traits.kept_under_autocast or (0.0, 0.0)
        return replace(
            traits,
            kept_bytes_per_token=(kept[0] + 4 * more[0], kept[1] + 4 * more[1]),
            kept_under_autocast=(low[0] + 2 * more[0], low[1] + 2 * more[1]),
        )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ResidualConfig."""
        from peftselect import ResidualConfig

        arguments = self.tuner_arguments(shape, values, context)
        arguments["target_modules"] = f"{arguments['target_modules']}|{SideMethod.block_pattern}"
        return ResidualConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            width=shape.hidden_size,
            begins=self.begins(shape),
            **arguments,
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer Res-Tuning."""
    return (ResTuning,)
