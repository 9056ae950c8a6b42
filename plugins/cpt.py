"""CPT: training rows stand before the input, and their embeddings are moved a little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, SoftPromptMethod, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape

#: training rows that the context is taken from, as far as they fit
ROWS = 16
#: kinds of tokens in peft's words, added to four times the number of the row: what is asked, and what is answered
ASKED, ANSWERED = 2, 4


class ContextAwarePromptTuning(SoftPromptMethod):
    """Solved examples as a soft prompt, of which what is asked is trained within a small ball."""

    name = "cpt"
    title = "Context-aware prompt tuning (CPT)"
    summary = "Puts solved training rows before the input and moves their embeddings a little: for few rows."
    family = "additive"
    aliases = ("context_aware_prompt_tuning",)
    structure = Structure(
        intra_connectivity="dense: embedding",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="1 layer",
        integration_form="concatenation",
        workspace="embedding layer",
    )
    references = (
        Reference(
            "CPT: In-Context Learning Optimization with Context-aware Prompt Tuning",
            "https://arxiv.org/abs/2410.17222",
            2024,
        ),
    )
    rate_from = "ours; the example in peft trains at 1e-4 for 5 epochs of single rows"
    formula = "n·d"
    limits = (
        "Decoders that write.",
        "Its step cannot be traced, since peft's loss reads values of tensors: the closed form prices it.",
        "The context is as many tokens as are set: rows that do not fit are cut or left out.",
        "What the rows say lies in the adapter's configuration, as numbers of tokens.",
    )
    simplified = (
        "The loss is that of the answer at hand; the paper adds those of the answers in the context, which decay.",
    )
    heads = frozenset({"causal_lm"})
    architectures = frozenset({"decoder"})
    judged = False
    default_tokens = 64

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length of the context, how far tokens may move, and the rate (peft's default radius)."""
        return (
            self.tokens_setting(),
            Hyperparameter(
                "epsilon", 0.1, "float", "how far a token may move, at a width of 2,048", 1e-4, 100.0, log=True
            ),
            Hyperparameter("learning_rate", 1e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """peft takes embeddings to be as wide as the model."""
        if shape.embedding_size != shape.hidden_size:
            return f"the embeddings of {shape.model_type} are narrower than the model"
        return super().unsupported(shape, values)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """What is added to the n embeddings."""
        return self.saved_parameters(shape, values)

    def examples(self, values: Mapping[str, Any]) -> int:
        """Rows for the context."""
        return ROWS

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's CPTConfig, with the tokens of the rows and their kinds."""
        from peft import CPTConfig

        ids, kinds = _context(context.examples, int(values["num_virtual_tokens"]))
        return CPTConfig(
            cpt_token_ids=ids,
            cpt_mask=[1] * len(ids),
            cpt_tokens_type_mask=kinds,
            opt_projection_epsilon=float(values["epsilon"]),
            opt_projection_format_epsilon=float(values["epsilon"]),
            task_type=context.task_type,
        )


def _context(examples: Mapping[str, Any] | None, wanted: int) -> tuple[list[int], list[int]]:
    """So many tokens and their kinds, which end with an answer; of no rows the first words of the vocabulary.

    Where a row is all answer, it is asked but for its last token.
    """
    ids, kinds = [], []
    rows = (
        []
        if examples is None
        else zip(examples["input_ids"], examples["attention_mask"], examples["labels"], strict=True)
    )
    for number, (tokens, mask, labels) in enumerate(rows):
        kept = mask.bool()
        answers = (labels[kept] != -100).tolist()
        if all(answers):
            answers = [False] * (len(answers) - 1) + [True]
        ids += tokens[kept].tolist()
        kinds += [4 * number + (ANSWERED if answer else ASKED) for answer in answers]
    times = -(-wanted // max(len(ids), 1))
    ids, kinds = (ids * times)[:wanted] or list(range(wanted)), (kinds * times)[:wanted] or [ASKED] * wanted
    kinds[-1] = max(kind + (-kind) % 4 for kind in kinds)
    return ids, kinds


@hookimpl
def register_methods() -> tuple[type[SoftPromptMethod], ...]:
    """Offer context-aware prompt tuning."""
    return (ContextAwarePromptTuning,)
