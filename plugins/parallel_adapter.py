"""Parallel adapters: a small network beside every feed-forward part, reading the same input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, first_of_ffn, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class ParallelAdapter(AdapterMethod):
    """The scaled parallel adapter on feed-forward parts, without prefixes."""

    name = "parallel_adapter"
    title = "Parallel adapter"
    summary = "Puts small bottleneck networks beside feed-forward parts, scaled: the adapter half of MAM."
    aliases = ("parallel", "pa", "adapter^p", "adapter_p")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="FFN",
    )
    # He et al. 2022, section 4 and appendix: width 512, scale 4
    references = (
        Reference(
            "Towards a Unified View of Parameter-Efficient Transfer Learning", "https://arxiv.org/abs/2110.04366", 2022
        ),
    )
    rate_from = "ours; He et al. 2022 train at 5e-5 (BART) and 1e-4 (RoBERTa) over tens of thousands of steps"
    formula = "N_ffn·(2·d·b + b + d)"
    thesis = ("2.2.11", "T2.6", "T2.13")
    limits = ("Cannot be merged: every call of the model pays for the adapters.",)
    acts_on = frozenset({"ffn"})
    roles = ("ffn_out",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width, activation, scale and rate."""
        scale = Hyperparameter("scale", 4.0, "float", "factor on an adapter's output", 0.01, 100, search=(1.0, 4.0))
        return (self.bottleneck_setting(), self.activation_setting(), scale, self.rate_setting())

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BottleneckConfig, reading where the feed-forward part begins."""
        from peftselect import BottleneckConfig

        return BottleneckConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            scale=values["scale"],
            input_modules=first_of_ffn(shape),
            **self.tuner_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer parallel adapters."""
    return (ParallelAdapter,)
