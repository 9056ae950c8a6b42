"""HyperTuning, in a reduced form: a network reads solved examples and writes the prefix of a frozen model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, MemoryTraits, PrefixMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape

#: heads whose label is one of a whole input, and is told to the network beside it
_LABELLED = "sequence_classification"


class HyperTuning(PrefixMethod):
    """A prefix that is emitted from training examples, which the frozen base has encoded."""

    name = "hypertuning"
    title = "HyperTuning"
    summary = "A network reads a few solved training examples, encoded by the frozen base, and writes a prefix."
    aliases = ("hyper_tuning", "hypert5_prefix")
    structure = Structure(
        intra_connectivity="dense: hypermodel",
        inter_connectivity="dynamic",
        parameters_adapted="addition",
        parameter_sharing="shared: layers",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="concatenation",
        workspace="attention: keys/values",
    )
    references = (
        Reference(
            "HyperTuning: Toward Adapting Large Language Models without Back-propagation",
            "https://arxiv.org/abs/2211.12485",
            2022,
        ),
    )
    rate_from = "ours: the paper trains another network, on many tasks"
    thesis = ("2.3",)
    formula = "n·w + (d + C + 1)·w + 2·(w + 1)·g·N_att"
    limits = (
        "Cannot be merged: every attention reads the longer keys and values.",
        "Of token labels and spans the examples show the inputs alone.",
        "What the base made of the examples (numbers, not texts) is saved with the adapter.",
    )
    simplified = (
        "The hypermodel is not pretrained on many tasks (hyperpretraining is left out), so it is trained by"
        " back-propagation on the one task: adapting without training, the paper's aim, is not had.",
        "The frozen base reads the examples and a small network with attention over them writes the prefix; in the"
        " paper a whole T5 that is trained does both.",
        "Each training step reads another half of the examples, evaluation all of them.",
    )
    heads = frozenset({"causal_lm", "seq2seq_lm", _LABELLED, "token_classification", "question_answering"})
    judged = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length, examples, width and rate."""
        return (
            self.prefix_settings()[0],
            Hyperparameter("examples", 16, "int", "training examples that the network reads", 1, 256, search=(4, 16)),
            Hyperparameter("inner_width", 128, "int", "width of the network", 1, 4096, search=(64, 128, 512)),
            Hyperparameter("learning_rate", 1e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The states of the last block must be as wide as the model."""
        if shape.architecture == "decoder" and shape.embedding_size != shape.hidden_size:
            return f"{shape.model_type} narrows its last states, which the network reads"
        return super().unsupported(shape, values)

    def encoded_width(self, shape: ModelShape) -> int:
        """Numbers by which an example is told."""
        return shape.hidden_size + (shape.head.num_labels if shape.head.kind == _LABELLED else 0)

    def prefix_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The questions, the reader and the writer."""
        sites = sum(linear.count for linear in self.attentions(shape))
        inner, rows = int(values["inner_width"]), int(values["num_virtual_tokens"])
        return (rows + self.encoded_width(shape) + 1) * inner + (inner + 1) * 2 * shape.kv_size * sites

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """What is trained, and the encoded examples."""
        return self.trainable_parameters(shape, values) + int(values["examples"]) * self.encoded_width(shape)

    def examples(self, values: Mapping[str, Any]) -> int:
        """As many as are set."""
        return int(values["examples"])

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Longer keys and values."""
        return MemoryTraits(prefix_positions=int(values["num_virtual_tokens"]), prefix_everywhere=True)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ExamplePrefixConfig."""
        from peftselect import ExamplePrefixConfig

        return ExamplePrefixConfig(
            examples=int(values["examples"]),
            encoded_width=shape.hidden_size,
            num_labels=self.encoded_width(shape) - shape.hidden_size,
            inner_width=int(values["inner_width"]),
            **self.prefix_arguments(shape, {**values, "prefix_projection": False}, context),
        )

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Put the prefixes in and let the base read the examples, where there are any (a trace has none)."""
        from peftselect import encode_examples

        wrapped = super().apply(model, values, context)
        if context.examples is not None:
            encode_examples(wrapped, context.examples)
        return wrapped


@hookimpl
def register_methods() -> tuple[type[PrefixMethod], ...]:
    """Offer HyperTuning."""
    return (HyperTuning,)
