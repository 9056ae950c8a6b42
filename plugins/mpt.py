"""Multitask prompt tuning: a prompt that tasks share, times a matrix of rank one that is the task's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, SoftPromptMethod, Structure, UnsupportedError, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class MultitaskPromptTuning(SoftPromptMethod):
    """A soft prompt of one task; ``prompt_from`` starts from those of others."""

    name = "mpt"
    title = "Multitask prompt tuning (MPT)"
    summary = "Trains a prompt that tasks share and scales it by a matrix of rank one of the task's own."
    family = "additive"
    aliases = ("multitask_prompt_tuning",)
    structure = Structure(
        intra_connectivity="dense: embedding",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="shared: tasks",
        input_type="weights",
        insertion_form="parallel",
        insertions="1 layer",
        integration_form="concatenation",
        workspace="embedding layer",
    )
    references = (
        Reference(
            "Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning",
            "https://arxiv.org/abs/2303.02861",
            2023,
        ),
    )
    rate_from = "prompt tuning's; Wang et al. 2023 have 0.3 on T5"
    thesis = ("1.2.2",)
    formula = "n·d + n·R + R·d"
    limits = (
        "A run has one task: train the sources first, each by a run of mpt or prompt_tuning, and name their folders"
        " with --set prompt_from=DIR,DIR.",
    )
    simplified = (
        "The sources are learnt one after another and their prompts averaged; the paper learns them together, and"
        " distils each from a prompt of its own.",
        "Prompt and matrix have one learning rate; the paper has two.",
    )
    judged = False
    # Wang et al., section 4: prompts of 100 vectors on T5
    default_tokens = 100

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Vectors, rank, sources and rate (0.3 in the paper, on T5)."""
        return (
            self.tokens_setting(),
            Hyperparameter("factor_rank", 1, "int", "rank of the task's matrix", 1, 64, search=(1, 2, 4)),
            Hyperparameter("prompt_from", (), "list", "folders of prompts of other tasks on this base"),
            Hyperparameter(
                "learning_rate", self.prompt_rate(shape), "float", "peak learning rate", 1e-6, 10.0, log=True
            ),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The shared prompt, both factors of the matrix, and the head."""
        width, tokens, rank = shape.embedding_size, int(values["num_virtual_tokens"]), int(values["factor_rank"])
        return self.saved_parameters(shape, values) + rank * (tokens + width)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's PromptTuningConfig: once trained, the prompt is like any other."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **self.prompt_arguments(shape, values, context))

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Put the prompt before the input and the matrix on it."""
        from peftselect import read_prompt, scale_prompt

        wrapped = super().apply(model, values, context)
        shared = None
        if sources := tuple(values["prompt_from"]):
            try:
                shared = read_prompt(sources)
            except ValueError as error:
                raise UnsupportedError(
                    f"prompt_from: {error}", "give the --output of runs of mpt or prompt_tuning"
                ) from None
            wanted = (int(values["num_virtual_tokens"]), context.shape.embedding_size)
            if tuple(shared.shape) != wanted:
                raise UnsupportedError(
                    f"prompt_from: the prompts are of {tuple(shared.shape)}, this one is of {wanted}",
                    f"use their base model, and --set num_virtual_tokens={len(shared)}",
                )
        scale_prompt(wrapped, int(values["factor_rank"]), shared)
        return wrapped


@hookimpl
def register_methods() -> tuple[type[SoftPromptMethod], ...]:
    """Offer multitask prompt tuning."""
    return (MultitaskPromptTuning,)
