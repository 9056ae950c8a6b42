"""Base class of the methods whose prefixes a generator makes from the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.families.linear import path_pattern
from peftselect.families.prefix import PrefixMethod
from peftselect.hyperparameter import Hyperparameter, learning_rate_setting
from peftselect.method import ALL_HEADS, SPEECH_HEADS, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import LinearModule, ModelShape

#: Wu et al. 2022 search up to 5e-3 on larger models. A narrow one hardly moves at that (TREC, 108 rows, MiniLM: 0.17
#: at 3e-3, 0.51 at 1e-2) and wants what a prefix of the task's own does (Liu et al. 2022, P-tuning v2)
GENERATOR_RATE, TASK_PREFIX_RATE = 1e-3, 1e-2


class InstancePrefixMethod(PrefixMethod):
    """Prefixes for the attentions of the encoder, made from the mean embedding of the instance."""

    architectures: ClassVar[frozenset[str]] = frozenset({"encoder", "encoder-decoder"})
    heads: ClassVar[frozenset[str]] = ALL_HEADS - SPEECH_HEADS
    structure: ClassVar[Structure] = Structure(
        intra_connectivity="dense: generator",
        inter_connectivity="dynamic",
        parameters_adapted="addition",
        parameter_sharing="shared: instances",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="concatenation",
        workspace="attention: keys/values",
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Cannot be merged: every attention reads the longer keys and values.",
        "Encoders, and the encoder of an encoder-decoder: before a decoder the instance and its answer are one text.",
    )
    default_tokens: ClassVar[int] = 5
    #: "instance": the generator's prefix alone; "fixed", "dynamic": mixed with one of the task's own
    mix: ClassVar[str] = "instance"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length, inner width of the generator, and rate."""
        return (
            self.prefix_settings()[0],
            Hyperparameter("generator_width", 16, "int", "inner width of the generator", 1, 4096, search=(16, 64)),
            learning_rate_setting(shape.hidden_size, GENERATOR_RATE, TASK_PREFIX_RATE),
        )

    def attentions(self, shape: ModelShape) -> tuple[LinearModule, ...]:
        """Those of the encoder: the instance is what it reads."""
        return tuple(linear for linear in super().attentions(shape) if linear.stack == "encoder")

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There must be embeddings of tokens to read the instance off."""
        if not shape.vocab_size:
            return f"{shape.model_type} reads no tokens, off whose embeddings the prefix is made"
        return super().unsupported(shape, values)

    def prefix_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The generator; the task's prefix (2 n g an attention) and the gate (d + 1) where there are."""
        sites = sum(linear.count for linear in self.attentions(shape))
        rows = 2 * int(values["num_virtual_tokens"]) * shape.kv_size * sites
        inner = int(values["generator_width"])
        generator = (shape.embedding_size + 1) * inner + (inner + 1) * rows
        own = rows if self.mix != "instance" else 0
        return generator + own + (shape.embedding_size + 1 if self.mix == "dynamic" else 0)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our InstancePrefixConfig."""
        from peftselect import InstancePrefixConfig

        arguments = self.prefix_arguments(shape, {**values, "prefix_projection": False}, context)
        if shape.architecture == "encoder-decoder":
            paths = path_pattern(linear.path.rpartition(".")[0] for linear in self.attentions(shape))
            arguments["target_modules"] = rf"(?:.*\.)?encoder\.{paths}"
        return InstancePrefixConfig(
            embedding_width=shape.embedding_size,
            generator_width=int(values["generator_width"]),
            mix=self.mix,  # type: ignore[arg-type]
            share=float(values.get("share", 0.5)),
            **arguments,
        )
