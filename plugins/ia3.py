"""(IA)3: learned factors on keys, values and the inner activations of the feed-forward network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    ALL_HEADS,
    Hyperparameter,
    MemoryTraits,
    Method,
    Reference,
    Structure,
    hookimpl,
    path_pattern,
    reads_encoder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class Ia3(Method):
    """Infused Adapter by Inhibiting and Amplifying Inner Activations."""

    name = "ia3"
    title = "(IA)³"
    heads = ALL_HEADS | {"feature_extraction"}
    summary = "Rescales keys, values and FFN activations with one vector each: very few parameters, few-shot learning."
    family = "additive"
    aliases = ("(ia)3", "(ia)^3", "t_few")
    structure = Structure(
        intra_connectivity="none: parameter vector",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="rescaling",
        workspace="FFN: intermediate representation; attention: keys/values",
        derived=False,
    )
    references = (
        Reference(
            "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
            "https://arxiv.org/abs/2205.05638",
            2022,
        ),
    )
    rate_from = (
        "Liu et al. 2022, section 3.3: 3e-3 for T0-3B under Adafactor; ours for models below 1,024 wide (MiniLM on "
        "1,200 sentences of SST-2: 0.72 at 1e-2, 0.55 at 3e-3)"
    )
    thesis = ("2.2.10", "T2.3", "T2.4", "T2.5", "T2.7")
    formula = "N_att·2·g + N_ffn·f"
    acts_on = frozenset({"attention", "ffn"})
    mergeable = True
    quantized_base = "possible"
    adds_inference_cost = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone."""
        rate = 1e-2 if shape.hidden_size < 1024 else 3e-3
        return (Hyperparameter("learning_rate", rate, "float", "peak learning rate", 1e-6, 1.0, log=True),)

    def _attention(self, shape: ModelShape) -> tuple[LinearModule, ...]:
        """Layers whose output is scaled; where queries are fused with keys and values, the queries are scaled too."""
        return shape.by_role("key", "value", "query_key_value")

    def _ffn(self, shape: ModelShape) -> tuple[LinearModule, ...]:
        """Layers whose input is scaled."""
        return shape.by_role("ffn_out")

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Both kinds of layer must be known."""
        if not self._attention(shape) or not self._ffn(shape):
            return f"keys, values or the second FFN layer of {shape.model_type} are not linear layers of their own"
        return None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A factor for each output of keys and values and each input of the second FFN layer, and the head."""
        attention = sum(item.count * item.out_features for item in self._attention(shape))
        return attention + sum(item.count * item.in_features for item in self._ffn(shape)) + shape.head.parameters

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Weights (and biases of keys and values) that the merged factors change, and the head."""
        attention = sum(item.parameters for item in self._attention(shape))
        ffn = sum(item.count * item.in_features * item.out_features for item in self._ffn(shape))
        return attention + ffn + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Each factor's gradient needs what it multiplied; peft takes the feed-forward input in float32."""
        kept = {True: 0.0, False: 0.0}
        for item in self._attention(shape):
            kept[reads_encoder(item)] += item.runs * item.out_features * compute_bytes
        for item in self._ffn(shape):
            kept[reads_encoder(item)] += item.runs * item.in_features * 4
        return MemoryTraits(kept_bytes_per_token=(kept[True], kept[False]))

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's IA3Config, by patterns: its own defaults scale one layer too many in BERT."""
        from peft import IA3Config

        attention, ffn = self._attention(shape), self._ffn(shape)
        return IA3Config(
            target_modules=path_pattern(item.path for item in (*attention, *ffn)),
            feedforward_modules=path_pattern(item.path for item in ffn),
            fan_in_fan_out=any(item.conv1d for item in (*attention, *ffn)) and not context.quantized,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer (IA)3."""
    return (Ia3,)
