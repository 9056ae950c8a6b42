"""Base class of the methods that put trained positions before the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.hyperparameter import Hyperparameter
from peftselect.method import ALL_HEADS, SPEECH_HEADS, MemoryTraits, Method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import ApplyContext
    from peftselect.shape import ModelShape


class SoftPromptMethod(Method):
    """A method that puts trained vectors before the input's embeddings.

    Token and span heads then give that many more logits than there are labels; tasks take them off (see
    :meth:`peftselect.method.Method.prepended_positions`). An encoder that pools its first position pools the first
    virtual token, no longer [CLS] (the head is trained on it, so it learns, but an untrained base has no use of it).
    peft cannot feed a prompt to the grouped inputs of multiple choice.
    """

    heads: ClassVar[frozenset[str]] = ALL_HEADS - {"multiple_choice"} - SPEECH_HEADS
    acts_on: ClassVar[frozenset[str]] = frozenset({"embedding"})
    quantized_base: ClassVar[Any] = "possible"
    default_tokens: ClassVar[int] = 20

    def tokens_setting(self) -> Hyperparameter:
        """The ``num_virtual_tokens`` hyperparameter."""
        return Hyperparameter(
            "num_virtual_tokens", self.default_tokens, "int", "vectors before the input", 1, 1000, search=(10, 20, 50)
        )

    def prompt_rate(self, shape: ModelShape) -> float:
        """The rate at which bare vectors learn.

        Lester et al. 2021 (section 3): 0.3 on T5, whose embeddings are of the order of ten. Encoders normalise their
        embeddings, so that a large rate does no harm there (measured on 1,200 sentences of SST-2 with a MiniLM, one
        epoch: 0.1 learns, 0.01 does not). Decoders do not, and theirs are a hundred times smaller than T5's.
        """
        rates = {"encoder": 0.1, "decoder": 0.01, "encoder-decoder": 0.3 if shape.relative_attention else 0.1}
        return rates[shape.architecture]

    def prepended_positions(self, values: Mapping[str, Any]) -> int:
        """Every virtual token takes a position."""
        return int(values["num_virtual_tokens"])

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The n vectors, and the head; whatever network made them is not needed any more."""
        return int(values["num_virtual_tokens"]) * shape.embedding_size + shape.head.parameters

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Classifiers of encoder-decoders look for the end of the text in the token ids, which a prompt takes away."""
        if shape.architecture == "encoder-decoder" and shape.head.kind == "sequence_classification":
            return "a sequence classifier on an encoder-decoder reads token ids, which a soft prompt replaces"
        return None

    def prompt_arguments(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """What every peft prompt configuration is given.

        One submodule: by default peft makes a second set of rows for the decoder of an encoder-decoder, which nothing
        ever reads. Sizes are given because peft's own guess fails where embeddings are narrower than the model.
        """
        return {
            "num_virtual_tokens": int(values["num_virtual_tokens"]),
            "num_transformer_submodules": 1,
            "token_dim": shape.embedding_size,
            "num_layers": shape.decoder_layers or shape.encoder_layers,
            "num_attention_heads": shape.num_heads,
            "task_type": context.task_type,
            "modules_to_save": context.modules_to_save,
        }

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Only the longer sequence."""
        return MemoryTraits(virtual_tokens=self.prepended_positions(values))
