"""Compacter: Houlsby's adapters with matrices made of Kronecker products, most of whose factors layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class Compacter(AdapterMethod):
    """Low-rank parameterised hypercomplex adapters after both sub-layers."""

    name = "compacter"
    title = "Compacter"
    summary = "Adapters whose matrices are sums of Kronecker products with shared factors: very few parameters."
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="shared",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN; attention",
        derived=False,
    )
    # Karimi Mahabadi et al. 2021, section 4, and their configuration: T5-base, inner width 768 / 32, n = 4, rank 1
    references = (
        Reference(
            "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", "https://arxiv.org/abs/2106.04647", 2021
        ),
    )
    rate_from = "the authors' configuration for T5-base: 3e-3"
    formula = "m³ + (N_att + N_ffn)·(2·R·(d + b) + b + d), m = division, R = factor_rank"
    thesis = ("1.2.2", "2.2.9", "T2.3", "T2.4")
    limits = (
        "Cannot be merged: every call of the model pays for the adapters.",
        "Each call builds its matrices anew, so that it is slower than plain adapters of the same width.",
    )
    simplified = ("Layer normalisations stay frozen; the paper trains them too.",)
    acts_on = frozenset({"attention", "ffn"})
    default_learning_rate = 3e-3

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, its division, rank of the layers' own factors, activation and rate."""
        return (
            Hyperparameter(
                "bottleneck", max(shape.hidden_size // 32, 8), "int", "inner width of an adapter", 1, 4096,
                search=(16, 24, 48), log=True,
            ),
            Hyperparameter("division", 4, "int", "n: both widths must be multiples of it", 1, 64, search=(2, 4, 8)),
            Hyperparameter("factor_rank", 1, "int", "rank of the factors that each layer has", 1, 64),
            self.activation_setting("gelu_new"),
            self.rate_setting(),
        )  # fmt: skip

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Both widths must be divisible."""
        division = int(values["division"])
        if missing := super().unsupported(shape, values):
            return missing
        for width in (*{site.out_features for site in self.sites(shape, values)}, int(values["bottleneck"])):
            if width % division:
                return f"the width {width} is no multiple of division={division}"
        return None

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """2 R (d + b) of factors, and the biases."""
        width, inner = site.out_features, int(values["bottleneck"])
        return 2 * int(values["factor_rank"]) * (width + inner) + inner + width

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of every site, n^3 that all share, and the head."""
        return super().trainable_parameters(shape, values) + int(values["division"]) ** 3

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our CompacterConfig."""
        from peftselect import CompacterConfig

        return CompacterConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            division=int(values["division"]),
            factor_rank=int(values["factor_rank"]),
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer Compacter."""
    return (Compacter,)
