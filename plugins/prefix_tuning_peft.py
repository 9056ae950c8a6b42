"""Prefix tuning as peft has it: trained keys and values before each self-attention of the (only or last) stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, SPEECH_HEADS, Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


#: encoders whose forward in transformers takes no ``past_key_values``
NO_CACHE = frozenset({"albert", "distilbert"})


class PrefixTuningPeft(Method):
    """Trained keys and values. In an encoder-decoder peft reaches the decoder's self-attention alone."""

    name = "prefix_tuning_peft"
    title = "Prefix tuning (peft)"
    summary = "Puts trained keys and values before each self-attention; leaves every weight as it is."
    family = "additive"
    aliases = ("decoder_prefix_tuning",)
    structure = Structure(
        intra_connectivity="dense: non-linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="gated addition",
        workspace="embedding layer; attention: keys/values",
        derived=False,
    )
    references = (
        Reference(
            "Prefix-Tuning: Optimizing Continuous Prompts for Generation", "https://arxiv.org/abs/2101.00190", 2021
        ),
    )
    rate_from = "ours for bare prefixes; with the MLP that of Li and Liang 2021 (table 8), 5e-5"
    thesis = ("2.2.6",)
    formula = "n·2·L·g (in encoder-decoders L is the decoder's), and its MLP while it trains"
    heads = ALL_HEADS - {"multiple_choice"} - SPEECH_HEADS
    acts_on = frozenset({"attention"})
    records_like = "prefix_tuning"
    quantized_base = "possible"
    gradient_checkpointing = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length, the network that makes the prefix, and the rate.

        Li and Liang 2021 (table 8) use a prefix of 10 (tables) to 200 (summaries) made by an MLP, at 5e-5 for many
        epochs. Without the MLP peft's own example takes 1e-2, and that learns in short runs (measured on 1,200
        sentences of SST-2 with a MiniLM, one epoch: 0.61; with the MLP 0.51 at any rate from 1e-3 to 1e-2).
        """
        return (
            Hyperparameter("num_virtual_tokens", 20, "int", "length of the prefix", 1, 1000, search=(10, 20, 50, 200)),
            Hyperparameter("prefix_projection", False, "bool", "make the prefix by an MLP, thrown away after training"),
            Hyperparameter("encoder_hidden_size", 512, "int", "width of that MLP", 1, 16384, search=(128, 512, 800)),
            Hyperparameter("learning_rate", 1e-2, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """The paper's rate with its MLP, peft's without."""
        return 5e-5 if values["prefix_projection"] else float(values["learning_rate"])

    def _layers(self, shape: ModelShape) -> int:
        """Layers for which rows are made.

        In an encoder-decoder peft deals the rows out twice over: of an even number of layers, layer i and layer
        i + L/2 would share one half and nothing would read the other. One layer more gives each its own.
        """
        if shape.architecture == "encoder-decoder":
            return shape.decoder_layers + 1 - shape.decoder_layers % 2
        return shape.decoder_layers or shape.encoder_layers

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The model must take keys and values from outside."""
        if shape.architecture == "encoder-decoder" and shape.head.kind not in {"seq2seq_lm", "causal_lm"}:
            return "a classifier on an encoder-decoder takes no keys and values from outside"
        if shape.model_type in NO_CACHE:
            return f"{shape.model_type} takes no keys and values from outside"
        return None

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """n rows of keys and values for each layer, or the MLP and its n inputs; and the head."""
        if not values["prefix_projection"]:
            return self.saved_parameters(shape, values)
        rows, width, hidden = int(values["num_virtual_tokens"]), shape.kv_size, int(values["encoder_hidden_size"])
        output = 2 * self._layers(shape) * width
        network = rows * width + (width * hidden + hidden) + (hidden * output + output)
        return network + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The keys and values themselves, and the head."""
        return int(values["num_virtual_tokens"]) * 2 * self._layers(shape) * shape.kv_size + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Longer keys and values; an encoder before the decoder gets none, and no gradient."""
        return MemoryTraits(prefix_positions=int(values["num_virtual_tokens"]), backward_reaches="decoder")

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's PrefixTuningConfig, sizes given: its guesses fail where heads * d_kv is not the model's width."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            num_virtual_tokens=int(values["num_virtual_tokens"]),
            prefix_projection=values["prefix_projection"],
            encoder_hidden_size=int(values["encoder_hidden_size"]),
            token_dim=shape.num_heads * shape.head_dim,
            num_attention_heads=shape.num_heads,
            num_layers=self._layers(shape),
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer prefix tuning as peft has it."""
    return (PrefixTuningPeft,)
