"""ProPETL with prefixes: one prefix for all attentions, of which each uses the part that its binary mask shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, PrefixMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class ProPetlPrefix(PrefixMethod):
    """A prototype prefix under a mask for each attention."""

    name = "propetl_prefix"
    title = "ProPETL (prefix)"
    summary = "One prefix shared by all attentions, each of which uses the half that its binary mask shows."
    aliases = ("propelt_prefix",)
    structure = Structure(
        intra_connectivity="dense: parameter matrix under a binary mask",
        inter_connectivity="fixed: sparse",
        parameters_adapted="addition",
        parameter_sharing="shared: layers",
        input_type="weights",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="gated addition",
        workspace="attention: keys/values",
    )
    # the authors' script has 64 tokens and a tenth of the prototype a layer; half of it, as for adapters, is ours
    references = (
        Reference(
            "One Network, Many Masks: Towards More Parameter-Efficient Transfer Learning",
            "https://arxiv.org/abs/2305.17682",
            2023,
        ),
    )
    rate_from = "ours, as for bare prefixes; the authors' script has 1e-4 for scores and weights over 10 to 20 epochs"
    formula = "one n·2·g and a score for each of its numbers in each attention"
    thesis = ("2.3", "T2.7")
    limits = (
        "Cannot be merged: every attention reads the longer keys and values.",
        "Needs an architecture whose attention transformers calls through its registry.",
    )
    simplified = (
        "Masks over layers alone; the paper also shares one prototype among tasks.",
        "The prefix is trained directly, without an MLP that makes it.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length, density of the masks and rate."""
        density = Hyperparameter(
            "density", 0.5, "float", "share of the prototype that a layer uses", 0.01, 1, search=(0.1, 0.3, 0.5)
        )
        rate = Hyperparameter("learning_rate", 1e-2, "float", "peak learning rate", 1e-6, 1.0, log=True)
        return (self.prefix_settings()[0], density, rate)

    def _one(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """2 n g."""
        return 2 * int(values["num_virtual_tokens"]) * shape.kv_size

    def _sites(self, shape: ModelShape) -> int:
        return sum(linear.count for linear in self.attentions(shape))

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The prototype once, a score for each number at each attention, and the head."""
        return self._one(shape, values) * (1 + self._sites(shape)) + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers in the file: the prototype, a byte for eight numbers of a mask, and the head."""
        one = self._one(shape, values)
        return one + self._sites(shape) * -(-one // 8) + shape.head.parameters

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ProConfig."""
        from peftselect import ProConfig

        arguments = self.prefix_arguments(shape, {**values, "prefix_projection": False}, context)
        return ProConfig(form="prefix", density=values["density"], **arguments)


@hookimpl
def register_methods() -> tuple[type[PrefixMethod], ...]:
    """Offer ProPETL with prefixes."""
    return (ProPetlPrefix,)
