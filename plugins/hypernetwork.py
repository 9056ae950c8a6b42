"""Hypernetworks, as HyperFormer has them: one network emits the adapters of all layers from their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class Hypernetwork(AdapterMethod):
    """Adapters after both sub-layers whose weights a shared linear map emits."""

    name = "hypernetwork"
    title = "HyperNetwork (HyperFormer)"
    summary = "One small network emits the adapters of all layers from an embedding of each place."
    aliases = ("hypernetworks", "hyperformer", "hypernet")
    structure = Structure(
        intra_connectivity="a network emits the weights of a non-linear MLP",
        inter_connectivity="dynamic",
        parameters_adapted="addition",
        parameter_sharing="shared generator",
        input_type="embeddings",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN; attention",
    )
    # Karimi Mahabadi et al. 2021, section 4: T5, embeddings of 64, inner widths 24 and 48
    references = (
        Reference(
            "Parameter-efficient Multi-task Fine-tuning for Transformers via Shared Hypernetworks",
            "https://arxiv.org/abs/2106.04489",
            2021,
        ),
        Reference("HyperNetworks", "https://arxiv.org/abs/1609.09106", 2016),
    )
    rate_from = "ours; Karimi Mahabadi et al. 2021 train at 3e-4 for 2**18 steps, and short runs want more"
    formula = "the generator of (2·d·b + b + d) weights, and an embedding for each place"
    thesis = ("1.2.2",)
    limits = ("Cannot be merged: every call of the model pays for the adapters, and emits them first.",)
    simplified = (
        "One task: places have embeddings of their own, and no task embedding is mixed in.",
        "Layer normalisations are not emitted; they stay frozen.",
    )
    acts_on = frozenset({"attention", "ffn"})
    default_bottleneck = 24

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, size of an embedding, activation and rate."""
        size = Hyperparameter(
            "embedding_size", 16, "int", "size of the embedding of a place", 1, 1024, search=(8, 16, 64), log=True
        )
        return (self.bottleneck_setting(), size, self.activation_setting("gelu_new"), self.rate_setting())

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """One network emits adapters of one width."""
        if len({site.out_features for site in self.sites(shape, values)}) > 1:
            return f"sub-layers of {shape.model_type} are not all of one width"
        return super().unsupported(shape, values)

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """An embedding."""
        return int(values["embedding_size"])

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The embeddings, t (2 d b + b + d) of the network, and the head."""
        emitted = super().site_parameters(self.sites(shape, values)[0], values)
        return super().trainable_parameters(shape, values) + int(values["embedding_size"]) * emitted

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our HyperConfig."""
        from peftselect import HyperConfig

        return HyperConfig(
            width=self.sites(shape, values)[0].out_features,
            bottleneck=int(values["bottleneck"]),
            embedding_size=int(values["embedding_size"]),
            activation=values["activation"],
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer hypernetworks."""
    return (Hypernetwork,)
