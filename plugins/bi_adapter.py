"""BI-Adapter: parallel adapters that are stored, and trained, at one bit a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, first_of_ffn, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class BiAdapter(AdapterMethod):
    """One-bit parallel adapters."""

    name = "bi_adapter"
    title = "BI-Adapter"
    summary = "Parallel adapters of one bit a weight: a sixteenth of the file, wider inside for the same bytes."
    aliases = ("binary_adapter", "biadapter")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP (1 bit)",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="FFN",
    )
    # Jie et al. 2023, section 4: AdaptFormer on ViT-B, inner width 32
    references = (
        Reference(
            "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy",
            "https://arxiv.org/abs/2307.16867",
            2023,
        ),
    )
    rate_from = "Jie et al. 2023, section 4: 1e-3, on ViT-B"
    formula = "N_ffn·2·d·b, stored at one bit each"
    thesis = ("2.3",)
    limits = (
        "Cannot be merged: every call of the model pays for the adapters.",
        "Saves storage alone: training keeps float weights and their optimizer states.",
        "Published for vision transformers; nothing is measured on text.",
    )
    acts_on = frozenset({"ffn"})
    roles = ("ffn_out",)
    starts_as_base = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, activation, scale and rate."""
        scale = Hyperparameter("scale", 1.0, "float", "factor on an adapter's output", 0.01, 100, search=(0.1, 1.0))
        return (self.bottleneck_setting(), self.activation_setting(), scale, self.rate_setting())

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """2 d b: there are no biases."""
        return 2 * site.out_features * int(values["bottleneck"])

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers in the file: a byte for eight weights, a mean and a deviation for each matrix, and the head."""
        sites = self.sites(shape, values)
        inner = int(values["bottleneck"])
        return sum(site.count * 2 * (-(-site.out_features * inner // 8) + 2) for site in sites) + shape.head.parameters

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All that are trained."""
        return self.trainable_parameters(shape, values)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BinaryBottleneckConfig."""
        from peftselect import BinaryBottleneckConfig

        return BinaryBottleneckConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            scale=values["scale"],
            input_modules=first_of_ffn(shape),
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer BI-Adapter."""
    return (BiAdapter,)
