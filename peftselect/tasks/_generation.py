"""What tasks share whose answer is a text: encoder-decoders read and write, decoders continue a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext

IGNORED = -100


class GenerationTask(Task):
    """Source text to target text.

    ``template`` is the prompt that the source is put into; a run may replace it (``TaskContext.template``).
    """

    family = "generation"
    heads: ClassVar[Mapping[str, str]] = {"encoder-decoder": "seq2seq_lm", "decoder": "causal_lm"}
    template: ClassVar[str] = "{source}"
    #: what stands between a decoder's prompt and its answer
    separator: ClassVar[str] = "\n"

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The source."""
        return (row["source"],)

    def target_text(self, row: Row) -> str:
        """The target."""
        return str(row["target"])

    def prompt(self, row: Row, context: TaskContext) -> str:
        """The source in its template; braces in the source are left alone."""
        template = context.template or self.template
        text = template.replace("{source}", row["source"])
        return text if context.architecture == "encoder-decoder" else text + self.separator

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Inputs with labels; a decoder's loss is on the answer alone."""
        from datasets import Dataset

        encode = encode_pair if context.architecture == "encoder-decoder" else encode_continuation
        return Dataset.from_list([encode(self.prompt(row, context), self.target_text(row), context) for row in rows])

    def encode_eval(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Inputs for generation: for decoders the prompts alone."""
        from datasets import Dataset

        prompts = [self.prompt(row, context) for row in rows]
        return Dataset.from_list([encode_prompt(prompt, context) for prompt in prompts])

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Pads to the longest of the batch: rows with labels on the right, prompts of a decoder on the left."""
        from transformers import DataCollatorForSeq2Seq

        tokenizer = context.tokenizer
        seq2seq = context.architecture == "encoder-decoder"
        pad = DataCollatorForSeq2Seq(tokenizer, model=model if seq2seq else None, label_pad_token_id=IGNORED)

        def collate(features: list[Row]) -> dict[str, Any]:
            side = tokenizer.padding_side
            if not seq2seq:
                tokenizer.padding_side = "right" if "labels" in features[0] else "left"
            try:
                return {key: value for key, value in pad(features).items() if value is not None}
            finally:
                tokenizer.padding_side = side

        return collate

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """Generated token ids (a row each, padded) as texts, a decoder's prompt cut off."""
        tokenizer = context.tokenizer
        texts = []
        for ids, prompt in zip(predictions, encoded["input_ids"], strict=True):
            kept = [int(token) for token in ids if token >= 0]
            if context.architecture == "decoder":
                kept = _without_prompt(kept, list(prompt), tokenizer.pad_token_id)
            texts.append(tokenizer.decode(kept, skip_special_tokens=True).strip())
        return texts

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """The task's metrics against all the references of each row."""
        return compute(self.metrics, predictions, [row.get("references") or [row["target"]] for row in rows])


def padded_sequences(tokenizer: Any) -> Callable[[list[Row]], dict[str, Any]]:
    """A collator of labelled sequences of a causal model, padded on the right; other columns are left out."""
    from transformers import DataCollatorForSeq2Seq

    pad = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)

    def collate(features: list[Row]) -> dict[str, Any]:
        side, tokenizer.padding_side = tokenizer.padding_side, "right"
        try:
            kept = [{key: row[key] for key in ("input_ids", "attention_mask", "labels")} for row in features]
            return dict(pad(kept))
        finally:
            tokenizer.padding_side = side

    return collate


def encode_pair(source: str, target: str, context: TaskContext) -> Row:
    """Ids of the source and, as labels, of the target."""
    tokenizer = context.tokenizer
    encoded = tokenizer(source, max_length=context.max_length, truncation=True)
    labels = tokenizer(text_target=target, max_length=context.max_target_length or None, truncation=True)["input_ids"]
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}


def encode_prompt(prompt: str, context: TaskContext, whole: bool = False) -> Row:
    """Ids of a prompt; ``whole``: it brings every special token along (a chat template has set them)."""
    ids = _prompt_ids(prompt, context, whole)
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _prompt_ids(prompt: str, context: TaskContext, whole: bool = False) -> list[int]:
    """The prompt's ids; one that is too long loses its middle, so that instruction and end are kept.

    Some tokenizers close every text: a prompt that is to be continued must stay open.
    """
    tokenizer = context.tokenizer
    if context.architecture == "encoder-decoder":
        ids: list[int] = tokenizer(prompt, max_length=context.max_length, truncation=True)["input_ids"]
        return ids
    ids = list(tokenizer(prompt, add_special_tokens=not whole)["input_ids"])
    while ids and not whole and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    if len(ids) <= context.max_length:
        return ids
    head = context.max_length // 2
    return ids[:head] + ids[len(ids) - (context.max_length - head) :]


def encode_continuation(prompt: str, answer: str, context: TaskContext, whole: bool = False) -> Row:
    """Prompt and answer as one sequence that ends in the end of text, the labels on the answer alone."""
    tokenizer = context.tokenizer
    before = _prompt_ids(prompt, context, whole)
    after = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
    if context.max_target_length:
        after = after[: context.max_target_length - 1]
    if tokenizer.eos_token_id is not None and after[-1:] != [tokenizer.eos_token_id]:
        after.append(tokenizer.eos_token_id)
    return {
        "input_ids": before + after,
        "attention_mask": [1] * (len(before) + len(after)),
        "labels": [IGNORED] * len(before) + after,
    }


def _without_prompt(ids: list[int], prompt: list[int], pad: int | None) -> list[int]:
    """What follows the prompt; it stands after padding on the left, or was not given back at all."""
    for start in range(len(ids) - len(prompt) + 1):
        if ids[start : start + len(prompt)] == prompt:
            return ids[start + len(prompt) :]
        if ids[start] != pad:
            break
    return ids


TEXT_COLUMNS = {
    "source": ("source", "input", "text", "document", "article", "dialogue", "context", "content"),
    "target": ("target", "summary", "highlights", "output", "completion", "response", "answer"),
}


def text_columns(source: Sequence[str] = (), target: Sequence[str] = ()) -> tuple[Column, ...]:
    """Source, target and optional references, the task's own aliases before the common ones."""
    return (
        Column("source", "text", (*source, *TEXT_COLUMNS["source"])),
        Column("target", "text", (*target, *TEXT_COLUMNS["target"]), answer=True),
        Column("references", "references", ("targets", "summaries", "human_references"), required=False),
    )
