"""ConvAdapter: convolutions over neighbouring positions after the feed-forward parts of an encoder, for speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class ConvAdapter(AdapterMethod):
    """Grouped convolutions of 3, 5 and 3 positions with a squeeze-and-excitation gate."""

    name = "conv_adapter"
    title = "ConvAdapter"
    summary = "Small convolutions over neighbouring positions after feed-forward parts of encoders, made for speech."
    aliases = ("convadapter", "conv_adapters")
    structure = Structure(
        intra_connectivity="conv1d, squeeze-and-excitation",
        inter_connectivity="fixed: local",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN",
    )
    references = (
        Reference(
            "Evaluating Parameter-Efficient Transfer Learning Approaches on SURE Benchmark for Speech Understanding",
            "https://arxiv.org/abs/2303.03267",
            2023,
        ),
    )
    rate_from = "ours, in the middle of the 1e-4 to 5e-3 of Li et al. 2023 (section 4, by task)"
    formula = "L·(8·d + 5·b + 2·d·⌊d/16⌋)"
    thesis = ("T2.11",)
    limits = (
        "Encoders alone: a convolution would show a decoder what comes later.",
        "Padding is seen by the convolutions and by the gate's mean, so that logits depend a little on the batch.",
    )
    simplified = (
        "Only the adapters in the transformer's blocks, none in the convolutional front end.",
        "GELU inside the gate, not ReLU, half of whose few units would never learn.",
    )
    architectures = frozenset({"encoder"})
    acts_on = frozenset({"ffn"})
    roles = ("ffn_out",)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner channels and rate."""
        channels = Hyperparameter(
            "bottleneck", max(shape.hidden_size // 12, 8), "int", "inner channels: a divisor of the model's width",
            1, 4096, search=(32, 64, 128), log=True,
        )  # fmt: skip
        return (channels, self.rate_setting())

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The channels are the groups of the convolutions."""
        if shape.hidden_size % int(values["bottleneck"]):
            return f"the width {shape.hidden_size} is no multiple of bottleneck={values['bottleneck']}"
        return super().unsupported(shape, values)

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """2 d of the norm, 3 d + 5 m + 3 d of the convolutions, 2 d max(d // 16, 8) of the gate."""
        width, inner = site.out_features, int(values["bottleneck"])
        return 8 * width + 5 * inner + 2 * width * max(width // 16, 8)

    def kept_numbers(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """What the norm, the convolutions and the gate read, and what the gate multiplies."""
        return 3 * site.out_features + 2 * int(values["bottleneck"])

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ConvolutionConfig."""
        from peftselect import ConvolutionConfig

        return ConvolutionConfig(channels=int(values["bottleneck"]), **self.tuner_arguments(shape, values, context))


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer ConvAdapter."""
    return (ConvAdapter,)
