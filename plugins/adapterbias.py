"""AdapterBias: a vector a feed-forward part, added to each token as strongly as the token asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class AdapterBias(AdapterMethod):
    """Token-dependent shifts."""

    name = "adapterbias"
    title = "AdapterBias"
    summary = "Adds one trained vector a layer to every token, scaled by a number read off the token: tiny adapters."
    aliases = ("adapter_bias",)
    structure = Structure(
        intra_connectivity="vector x token scalar",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN: second linear layer",
    )
    references = (
        Reference(
            "AdapterBias: Parameter-efficient Token-dependent Representation Shift for Adapters in NLP Tasks",
            "https://arxiv.org/abs/2205.00305",
            2022,
        ),
    )
    rate_from = (
        "ours; Fu et al. 2022 (section 4) train at 1e-4 to 1e-3 for 20 epochs, and so few parameters want more in a "
        "short run"
    )
    formula = "N_ffn·(d + f + 1)"
    thesis = ("T2.12",)
    limits = ("Cannot be merged: the shift depends on the token.",)
    acts_on = frozenset({"ffn", "bias"})
    roles = ("ffn_out",)
    default_learning_rate = 1e-2

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The rate alone."""
        return (self.rate_setting(),)

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """A vector of the output's width, and a map from the input to a number."""
        return site.out_features + site.in_features + 1

    def kept_numbers(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """What the map reads, and the number."""
        return site.in_features + 1

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our TokenBiasConfig."""
        from peftselect import TokenBiasConfig

        return TokenBiasConfig(**self.tuner_arguments(shape, values, context))


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer AdapterBias."""
    return (AdapterBias,)
