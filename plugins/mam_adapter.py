"""MAM adapter (mix-and-match): a short prefix at every attention and a parallel adapter at every feed-forward part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    AdapterMethod,
    Hyperparameter,
    MemoryTraits,
    PrefixMethod,
    Reference,
    Structure,
    attention_pattern,
    first_of_ffn,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class MamAdapter(AdapterMethod, PrefixMethod):
    """Prefix tuning and the scaled parallel adapter in one."""

    name = "mam_adapter"
    title = "MAM adapter"
    summary = "Short prefixes at attentions and scaled parallel adapters at feed-forward parts: strong, but not small."
    family = "hybrid"
    aliases = ("mam", "mhm", "mix_and_match", "mam_adapters")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP (both parts)",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights + data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="gated addition + scaled addition",
        workspace="attention: keys/values; FFN",
    )
    # He et al. 2022, section 4.6: a prefix of 30, an inner width of half the model's (512 of 1,024), scale 4
    references = (
        Reference(
            "Towards a Unified View of Parameter-Efficient Transfer Learning", "https://arxiv.org/abs/2110.04366", 2022
        ),
    )
    rate_from = (
        "ours, as for parallel adapters; He et al. 2022 train at 5e-5 (BART) and 1e-4 (RoBERTa) over tens of thousands "
        "of steps"
    )
    formula = "N_att·2·n·g + N_ffn·(2·d·b + b + d), and the prefix's MLP while it trains"
    thesis = ("2.2.11", "T2.7", "T2.13")
    limits = (
        "Cannot be merged: attentions read the prefix, and every call pays for the adapters.",
        "Needs an architecture whose attention transformers calls through its registry.",
    )
    simplified = ("The prefix is trained directly; prefix_projection=true makes it by the paper's MLP.",)
    acts_on = frozenset({"attention", "ffn"})
    roles = ("ffn_out",)
    starts_as_base = False
    default_tokens = 30

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Those of both parts."""
        inner = Hyperparameter(
            "bottleneck", max(shape.hidden_size // 2, 8), "int", "inner width of an adapter", 1, 4096,
            search=(64, 200, 512), log=True,
        )  # fmt: skip
        scale = Hyperparameter("scale", 4.0, "float", "factor on an adapter's output", 0.01, 100, search=(1.0, 4.0))
        return (*self.prefix_settings(), inner, self.activation_setting(), scale, self.rate_setting())

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Both parts must find their place."""
        return AdapterMethod.unsupported(self, shape, values) or PrefixMethod.unsupported(self, shape, values)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """2 n g an attention, 2 d b + b + d a feed-forward part, and the head."""
        return super().trainable_parameters(shape, values) + self.prefix_parameters(shape, values)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """What the adapters keep, and longer keys and values."""
        adapters = super().memory(shape, values, compute_bytes)
        return MemoryTraits(
            kept_bytes_per_token=adapters.kept_bytes_per_token,
            kept_under_autocast=adapters.kept_under_autocast,
            prefix_positions=int(values["num_virtual_tokens"]),
            prefix_everywhere=True,
        )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our MamConfig."""
        from peftselect import MamConfig

        ffn = self.tuner_arguments(shape, values, context)["target_modules"]
        arguments = self.prefix_arguments(shape, values, context)
        return MamConfig(
            **{**arguments, "target_modules": f"{attention_pattern(shape)}|{ffn}"},
            ffn_modules=ffn,
            input_modules=first_of_ffn(shape),
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            scale=values["scale"],
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer the MAM adapter."""
    return (MamAdapter,)
