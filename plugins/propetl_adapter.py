"""ProPETL with adapters: one adapter for all layers, of which each uses the part that its binary mask shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class ProPetlAdapter(AdapterMethod):
    """A prototype adapter under a mask for each sub-layer."""

    name = "propetl_adapter"
    title = "ProPETL (adapter)"
    summary = "One adapter shared by all layers, each of which uses the half that its binary mask shows: tiny files."
    aliases = ("propetl", "propelt", "propelt_adapter")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP under a binary mask",
        inter_connectivity="fixed: sparse",
        parameters_adapted="addition",
        parameter_sharing="shared: layers",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN; attention",
    )
    # Zeng et al. 2023, section 4: half of the prototype a layer
    references = (
        Reference(
            "One Network, Many Masks: Towards More Parameter-Efficient Transfer Learning",
            "https://arxiv.org/abs/2305.17682",
            2023,
        ),
    )
    rate_from = "the authors' script for the masks' scores: 3e-3; their weights learn at 1e-4"
    formula = "one adapter (2·d·b + b + d) and a score for each of its weights in each place"
    thesis = ("2.3", "T2.7")
    limits = (
        "Cannot be merged: every call of the model pays for the adapters.",
        "Training keeps a float score for each weight of each layer; only the file is small.",
    )
    simplified = ("Masks over layers alone; the paper also shares one prototype among tasks.",)
    acts_on = frozenset({"attention", "ffn"})
    default_bottleneck = 48
    default_learning_rate = 3e-3

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, activation, density of the masks and rate."""
        density = Hyperparameter(
            "density", 0.5, "float", "share of the prototype that a layer uses", 0.01, 1, search=(0.3, 0.5, 0.7)
        )
        return (self.bottleneck_setting(), self.activation_setting("gelu"), density, self.rate_setting())

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """One prototype fits one width."""
        if len({site.out_features for site in self.sites(shape, values)}) > 1:
            return f"sub-layers of {shape.model_type} are not all of one width"
        return super().unsupported(shape, values)

    def _prototype(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """2 d b + b + d."""
        return self.site_parameters(self.sites(shape, values)[0], values)

    def _masks(self, shape: ModelShape, values: Mapping[str, Any]) -> list[int]:
        """Scores of each mask: 2 d b a site."""
        return [
            2 * site.out_features * int(values["bottleneck"])
            for site in self.sites(shape, values)
            for _ in range(site.count)
        ]

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The prototype once, a score for each weight at each site, and the head."""
        return self._prototype(shape, values) + sum(self._masks(shape, values)) + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers in the file: the prototype, a byte for eight weights of a mask, and the head."""
        masks = sum(-(-number // 8) for number in self._masks(shape, values))
        return self._prototype(shape, values) + masks + shape.head.parameters

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ProConfig."""
        from peftselect import ProConfig

        return ProConfig(
            form="adapter",
            inner=int(values["bottleneck"]),
            density=values["density"],
            activation=values["activation"],
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer ProPETL with adapters."""
    return (ProPetlAdapter,)
