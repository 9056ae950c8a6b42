"""Layer-wise fine-tuning: the last few blocks are trained, and the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ChangeMethod, Hyperparameter, MemoryTraits, Reference, Structure, hookimpl, parameters_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Layerwise(ChangeMethod):
    """All weights of the last blocks, as a change beside the frozen model."""

    name = "layerwise"
    title = "Layer-wise fine-tuning"
    summary = "Trains the last few blocks and the head: most of full fine-tuning's quality at part of its memory."
    aliases = ("layer_wise", "layer_wise_fine_tuning", "layerwise_finetuning")
    structure = Structure(
        intra_connectivity="the module's own",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="in place",
        insertions="last k layers",
        integration_form="direct addition",
        workspace="blocks",
    )
    # Lee et al. 2019: a quarter of the blocks gives 90 % of the quality
    references = (
        Reference(
            "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", "https://arxiv.org/abs/1911.03090",
            2019,
        ),
    )  # fmt: skip
    rate_from = "as for full fine-tuning, where Lee et al. 2019 have it too"
    thesis = ("1.2.2",)
    formula = "k·(parameters of a block)"
    limits = (
        "Of an encoder-decoder the decoder's last blocks are trained; its encoder stays.",
        "The adapter's file holds every weight of these blocks.",
    )
    acts_on = frozenset({"attention", "ffn", "norm"})

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How many blocks, and the rate."""
        quarter = max(self._layers(shape) // 4, 1)
        blocks = Hyperparameter("blocks", quarter, "int", "blocks that are trained, from the last on", 1, 1000)
        return (blocks, self.rate_setting(shape))

    def _layers(self, shape: ModelShape) -> int:
        return shape.decoder_layers or shape.encoder_layers

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Blocks must have weights of their own, and the first one stays."""
        if not max(shape.block_parameters):
            return f"the blocks of {shape.model_type} share their layers"
        if int(values["blocks"]) >= self._layers(shape):
            return f"blocks={values['blocks']}: of {self._layers(shape)} blocks the first must stay (full_finetuning)"
        return None

    def numbers(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of the last blocks."""
        return int(values["blocks"]) * shape.block_parameters[1 if shape.decoder_layers else 0]

    def kept(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All that is trained, none of it chosen."""
        return 0

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of the last blocks, and the head."""
        return self.numbers(shape, values) + shape.head.parameters

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All that is trained."""
        return self.trainable_parameters(shape, values)

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All that is trained."""
        return self.trainable_parameters(shape, values)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """No gradient enters the blocks below; the trained ones keep their inputs, and copies of their weights."""
        stack = "decoder" if shape.decoder_layers else "encoder"
        below, blocks = self._layers(shape) - int(values["blocks"]), int(values["blocks"])
        own = [linear for linear in shape.linears if linear.stack == stack]
        weights = sum(linear.count * linear.in_features * linear.out_features for linear in own)
        return MemoryTraits(
            changes_base_weights=True,
            backward_reaches="decoder" if shape.architecture == "encoder-decoder" else "input",
            quiet_blocks=(0, below) if shape.decoder_layers else (below, 0),
            kept_bytes_per_step=compute_bytes * weights * blocks / self._layers(shape),
        )

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """A whole change of the parameters in the last blocks."""
        layers = self._layers(context.shape)
        last = range(layers - int(values["blocks"]), layers)
        stack = "decoder" if context.shape.decoder_layers else "encoder"
        return {"kind": "dense", "pattern": parameters_pattern(context.shape, stack, last)}


@hookimpl
def register_methods() -> tuple[type[ChangeMethod], ...]:
    """Offer layer-wise fine-tuning."""
    return (Layerwise,)
