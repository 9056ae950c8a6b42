"""Pfeiffer adapters: one small network a block, after the feed-forward part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Pfeiffer(AdapterMethod):
    """Sequential bottleneck adapters after the feed-forward part alone: half of Houlsby's, nearly as good."""

    name = "adapter_pfeiffer"
    title = "Adapter (Pfeiffer)"
    summary = "Puts one small bottleneck network into every block, after its feed-forward part."
    aliases = ("pfeiffer", "pfeiffer_adapter")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN",
    )
    # Pfeiffer et al. 2021, section 4: widths of a sixteenth of the model's
    references = (
        Reference(
            "AdapterFusion: Non-Destructive Task Composition for Transfer Learning",
            "https://arxiv.org/abs/2005.00247",
            2021,
        ),
    )
    rate_from = "ours, as for Houlsby's adapters; Pfeiffer et al. 2021 train at 1e-4 for 30 epochs"
    formula = "N_ffn·(2·d·b + b + d)"
    thesis = ("2.2.7", "2.3")
    limits = ("Cannot be merged: every call of the model pays for the adapters.",)
    acts_on = frozenset({"ffn"})
    roles = ("ffn_out",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """A sixteenth of the model's width inside, as in the paper."""
        width = Hyperparameter(
            "bottleneck", max(shape.hidden_size // 16, 8), "int", "inner width of an adapter", 1, 4096,
            search=(16, 48, 64, 256), log=True,
        )  # fmt: skip
        return (width, self.activation_setting(), self.rate_setting())

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BottleneckConfig."""
        from peftselect import BottleneckConfig

        return BottleneckConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer Pfeiffer adapters."""
    return (Pfeiffer,)
