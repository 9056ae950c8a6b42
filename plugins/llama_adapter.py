"""LLaMA-Adapter: prompts in the attention of the upper blocks, behind a gate that is closed at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, PrefixMethod, Reference, Structure, block_pattern, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class LlamaAdapter(PrefixMethod):
    """A prompt and a gate for each of the upper blocks of a decoder."""

    name = "llama_adapter"
    title = "LLaMA-Adapter"
    summary = "Lets the attention of the upper blocks read trained prompts through a gate that opens while it trains."
    aliases = ("adaption_prompt", "zero_init_attention")
    structure = Structure(
        intra_connectivity="dense: embedding",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="parallel",
        insertions="upper layers",
        integration_form="gated addition",
        workspace="attention: keys/values",
    )
    references = (
        Reference(
            "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention",
            "https://arxiv.org/abs/2303.16199",
            2023,
        ),
    )
    rate_from = (
        "the PEFT project's run on Llama-3.2-3B; the authors' script has 9e-3 for batches of 256, in proportion to the "
        "batch"
    )
    formula = "(L - skipped)·(n·d + 1)"
    limits = (
        "Cannot be merged: the attention of the upper blocks reads the prompts in every call.",
        "Decoders whose keys and values are made by layers of their own.",
    )
    simplified = ("The gate is one number a block, as the paper writes it; its code has one for each head.",)
    architectures = frozenset({"decoder"})
    heads = frozenset({"causal_lm", "sequence_classification"})
    starts_as_base = True
    judged = False
    default_tokens = 10

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Zhang et al., section 4.1: prompts of 10 in the upper 30 of LLaMA's 32 blocks."""
        return (
            self.prefix_settings()[0],
            Hyperparameter("skipped_layers", 2, "int", "lowest blocks without a prompt", 0, 1000),
            Hyperparameter("learning_rate", 5e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def attentions(self, shape: ModelShape) -> tuple[LinearModule, ...]:
        """Those with layers of their own for keys."""
        return shape.by_role("key")

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Prompts go through the layers that make keys and values."""
        if not shape.by_role("key") or not shape.by_role("value"):
            return f"{shape.model_type} makes keys and values in one layer"
        return super().unsupported(shape, values)

    def _skipped(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """At least one block has a prompt."""
        return min(int(values["skipped_layers"]), shape.decoder_layers - 1)

    def prefix_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A prompt and a gate in each upper block."""
        blocks = shape.decoder_layers - self._skipped(shape, values)
        return blocks * (int(values["num_virtual_tokens"]) * shape.hidden_size + 1)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Shares of the prompt in each head, before and after the gate, and what they read."""
        skipped, tokens = self._skipped(shape, values), int(values["num_virtual_tokens"])
        shares = shape.num_heads * tokens * (8 + compute_bytes)
        each = shares + shape.num_heads * shape.head_dim * compute_bytes
        return MemoryTraits(
            kept_bytes_per_token=(0, (shape.decoder_layers - skipped) * each), quiet_blocks=(0, skipped)
        )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our AdaptionConfig."""
        from dataclasses import replace

        from peftselect import AdaptionConfig

        keys, made = shape.by_role("key"), shape.by_role("value")
        modules = [replace(linear, path=linear.path.rpartition(".")[0]) for linear in keys]
        upper = {"decoder": range(self._skipped(shape, values), shape.decoder_layers)}
        return AdaptionConfig(
            target_modules=block_pattern(shape, modules, upper),
            num_virtual_tokens=int(values["num_virtual_tokens"]),
            width=shape.hidden_size,
            keys=keys[0].name,
            values=made[0].name,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[PrefixMethod], ...]:
    """Offer LLaMA-Adapter."""
    return (LlamaAdapter,)
