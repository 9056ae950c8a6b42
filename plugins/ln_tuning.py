"""LayerNorm tuning: trains the normalisations and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape

#: how transformers names the normalisations of a body, those of convolutions over sound left out; peft holds whole
#: names against it
NORMS = r"(?!.*feature_extractor\.).*(?:[Ll]ayer_?[Nn]orm(?:_embedding)?|\.ln_(?:\d|f)|\.(?:[qk]_)?norm)"


class LnTuning(Method):
    """Scales (and shifts, where there are) of all normalisations, and the head."""

    name = "ln_tuning"
    title = "LayerNorm tuning"
    summary = "Trains the scales and shifts of the normalisations: among the smallest adapters, and free at inference."
    family = "selective"
    aliases = ("layernorm_tuning", "norm_tuning", "layer_norm_tuning")
    structure = Structure(
        intra_connectivity="none: parameter vector",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing normalisations",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="in place",
        insertions="all layers",
        integration_form="direct scaling",
        workspace="all normalisations",
    )
    references = (
        Reference(
            "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
            "https://arxiv.org/abs/2312.11420",
            2023,
        ),
    )
    rate_from = "ours, as for BitFit; Liu et al. 2022 train the norms of T0-3B at 3e-4 for 1,000 steps"
    formula = "Σ of all normalisations"
    limits = ("Normalisations of convolutions over sound stay frozen, so that none of their activations is kept.",)
    heads = ALL_HEADS | {"feature_extraction"}
    acts_on = frozenset({"norm"})
    starts_as_base = True
    mergeable = True
    quantized_base = "possible"
    adds_inference_cost = False
    judged = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone, as for other vectors that are trained by themselves (BitFit's biases)."""
        return (Hyperparameter("learning_rate", 1e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All normalisations of the body but those of convolutions over sound, and the head."""
        front = shape.audio.convolutions[: shape.audio.normed] if shape.audio else ()
        return shape.norm_parameters - 2 * sum(channels for channels, *_ in front) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Over a base in 16 bits each norm reads and keeps a float32 copy; a root-mean-square norm its product, too."""
        each = shape.hidden_size * shape.norms_per_block * (4 if compute_bytes < 4 else 0)
        each += shape.hidden_size * shape.norms_per_block * 4 * shape.rms_norm
        cross = shape.hidden_size * (4 if compute_bytes < 4 else 0) if shape.architecture == "encoder-decoder" else 0
        return MemoryTraits(kept_bytes_per_token=(each * shape.encoder_layers, (each + cross) * shape.decoder_layers))

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's LNTuningConfig."""
        from peft import LNTuningConfig

        return LNTuningConfig(
            target_modules=NORMS, task_type=context.task_type, modules_to_save=context.modules_to_save
        )

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Put copies in; their output is as wide as what they read, whatever they are trained in."""
        wrapped = super().apply(model, values, context)
        for module in wrapped.modules():
            if hasattr(module, "ln_tuning_layers"):
                module.register_forward_hook(_as_read)
        return wrapped


def _as_read(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    return output.to(inputs[0].dtype)


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer LayerNorm tuning."""
    return (LnTuning,)
