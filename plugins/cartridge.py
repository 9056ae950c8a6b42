"""Cartridges: the key/value cache of a text, trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, Method, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape

#: training rows whose text the cache begins as
ROWS = 16


class Cartridge(Method):
    """Keys and values of a text before the input, which begin as the model's own and are trained."""

    name = "cartridge"
    title = "Cartridge"
    summary = "Trains the key/value cache of a text: a prefix that begins as what the model keeps of training rows."
    family = "additive"
    aliases = ("cartridges", "trained_kv_cache")
    structure = Structure(
        intra_connectivity="dense: embedding",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="concatenation",
        workspace="attention: keys/values",
    )
    references = (
        Reference(
            "Cartridges: Lightweight and general-purpose long context representations via self-study",
            "https://arxiv.org/abs/2506.06266",
            2025,
        ),
    )
    rate_from = "the authors' training script: 2e-2 for a cache of LLaMA-3.1-8B"
    formula = "(n - frozen)·2·L·g"
    limits = (
        "Decoders whose attention takes keys and values from outside.",
        "Without gradient checkpointing; an adapter that was saved cannot be trained further.",
    )
    simplified = (
        "It is trained on the rows of the task; the paper has the model ask itself about a long text (self-study) and"
        " distils the answers.",
    )
    heads = frozenset({"causal_lm", "sequence_classification"})
    architectures = frozenset({"decoder"})
    acts_on = frozenset({"attention"})
    quantized_base = "possible"
    gradient_checkpointing = False
    judged = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length, tokens that stay (one, as an attention sink: Eyuboglu et al. 2025), and the rate."""
        return (
            Hyperparameter("num_virtual_tokens", 32, "int", "length of the cache", 2, 4096, search=(32, 128, 512)),
            Hyperparameter("num_frozen_tokens", 1, "int", "first tokens that are not trained", 0, 1),
            Hyperparameter("learning_rate", 2e-2, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Bloom shapes its cache in its own way."""
        if shape.model_type in {"bloom", "gpt_bigcode"}:
            return f"{shape.model_type} takes no keys and values from outside"
        return None

    def _size(self, shape: ModelShape, tokens: int) -> int:
        return tokens * 2 * shape.decoder_layers * shape.kv_size

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Keys and values of the tokens that are trained, and the head."""
        tokens = int(values["num_virtual_tokens"]) - int(values["num_frozen_tokens"])
        return self._size(shape, tokens) + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Those of all tokens, and the head."""
        return self._size(shape, int(values["num_virtual_tokens"])) + shape.head.parameters

    def examples(self, values: Mapping[str, Any]) -> int:
        """Rows to begin as."""
        return ROWS

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Longer keys and values."""
        return MemoryTraits(prefix_positions=int(values["num_virtual_tokens"]))

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's CartridgeConfig, sizes given."""
        from peft import CartridgeConfig

        return CartridgeConfig(
            num_virtual_tokens=int(values["num_virtual_tokens"]),
            num_frozen_tokens=int(values["num_frozen_tokens"]),
            token_dim=shape.num_heads * shape.head_dim,
            num_attention_heads=shape.num_heads,
            num_layers=shape.decoder_layers,
            num_transformer_submodules=1,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Put the cache there; it begins as the base's own of the first tokens of the rows, where there are any."""
        import torch
        from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values

        wrapped = super().apply(model, values, context)
        if context.examples is not None:
            rows, mask = context.examples["input_ids"], context.examples["attention_mask"]
            text = rows[mask.bool()]
            wanted = int(values["num_virtual_tokens"])
            ids = text.repeat(-(-wanted // len(text)))[:wanted].unsqueeze(0).to(wrapped.device)
            base, trains = wrapped.get_base_model(), wrapped.training
            with torch.no_grad():
                cache = base.eval().base_model(input_ids=ids, use_cache=True).past_key_values
            initialize_kv_prefix_from_past_key_values(wrapped, past_key_values=cache)
            wrapped.train(trains)
        return wrapped


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer cartridges."""
    return (Cartridge,)
