"""Named-entity recognition and other tagging of words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext
from peftselect.tasks._labels import label_id, sorted_labels

IGNORED = -100
OUTSIDE = "O"
#: how tags of the BIO and BIOES schemes begin
_PREFIXES = frozenset(f"{letter}-" for letter in "BIESLU")


class Ner(Task):
    """A tag a word (BIO); the first piece of each word carries it. Scored on whole entities (seqeval)."""

    name = "ner"
    title = "Named-entity recognition"
    aliases = ("named_entity_recognition", "token_classification", "tagging", "pos", "chunking",
               "information_extraction", "slot_tagging", "keyphrase_extraction")  # fmt: skip
    family = "tagging"
    heads: ClassVar[Mapping[str, str]] = {"encoder": "token_classification"}
    columns = (
        Column("tokens", "tokens", ("words",)),
        Column("tags", "tags", ("ner_tags", "labels", "ner", "pos_tags", "chunk_tags")),
    )
    metrics = ("seqeval_f1", "seqeval_precision", "seqeval_recall", "seqeval_accuracy")
    default_models = ("roberta-base", "distilbert-base-uncased", "all-minilm-l6-v2")
    default_max_length = 256

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The words, joined."""
        return (" ".join(row["tokens"]),)

    def target_text(self, row: Row) -> str:
        """The tags, joined."""
        return " ".join(row["tags"])

    def check_row(self, row: Row) -> str | None:
        """Every word needs its tag."""
        words, tags = len(row["tokens"]), len(row["tags"])
        return None if words == tags else f"{words} tokens and {tags} tags"

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Distinct tags of the rows."""
        return sorted_labels([tag for row in rows for tag in row["tags"]])

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Pieces of the words, the first of each with the word's tag."""
        from datasets import Dataset

        space = " " if _wants_space(context.tokenizer) else ""
        encoded = context.tokenizer(
            [[space + token for token in row["tokens"]] for row in rows],
            is_split_into_words=True,
            truncation=True,
            max_length=context.max_length,
        )
        labels, words = [], []
        for index, row in enumerate(rows):
            first = _first_pieces(encoded.word_ids(index))
            ids = [label_id(tag, context.labels) for tag in row["tags"]]
            labels.append([IGNORED if word is None else ids[word] for word in first])
            words.append([-1 if word is None else word for word in first])
        return Dataset.from_dict({**dict(encoded), "labels": labels, "word_at": words})

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Pads inputs and labels; labels get as many ignored positions before them as the method prepends."""
        import torch
        from transformers import DataCollatorForTokenClassification

        pad = DataCollatorForTokenClassification(context.tokenizer)

        def collate(features: list[Row]) -> dict[str, Any]:
            batch = dict(pad([_without_words(feature) for feature in features]))
            if context.prepended_positions:
                before = torch.full((len(features), context.prepended_positions), IGNORED, dtype=torch.long)
                batch["labels"] = torch.cat([before, batch["labels"]], dim=1)
            return batch

        return collate

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The tag of each word, read at its first piece; words that were cut off count as outside."""
        logits = predictions[0] if isinstance(predictions, tuple) else predictions
        found = []
        for scores, words, row in zip(logits, encoded["word_at"], rows, strict=True):
            chosen = scores[context.prepended_positions :].argmax(-1)
            tags = [OUTSIDE] * len(row["tokens"])
            for position, word in enumerate(words):
                if word >= 0:
                    tags[word] = context.labels[int(chosen[position])]
            found.append(tags)
        return found

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Precision, recall and F1 of whole entities; without B- and I- (parts of speech) each word is one."""
        return compute(self.metrics, [_scheme(tags) for tags in predictions], [_scheme(row["tags"]) for row in rows])


def _scheme(tags: Sequence[str]) -> list[str]:
    """Tags as seqeval reads them: it takes the first letter of a tag without a scheme for one."""
    return [tag if tag == OUTSIDE or tag[:2] in _PREFIXES else f"B-{tag}" for tag in tags]


def _wants_space(tokenizer: Any) -> bool:
    """Whether words given one by one lack the blank by which byte-level tokenizers know a new word (RoBERTa's)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    first = json.loads(backend.to_str())["pre_tokenizer"] or {}
    steps = first.get("pretokenizers", [first])
    return any(step.get("type") == "ByteLevel" and not step.get("add_prefix_space") for step in steps)


def _first_pieces(word_ids: Sequence[int | None]) -> list[int | None]:
    """The word of each piece which begins one, None elsewhere."""
    before: list[int | None] = [None, *word_ids[:-1]]
    return [word if word != previous else None for word, previous in zip(word_ids, before, strict=True)]


def _without_words(feature: Row) -> Row:
    return {key: value for key, value in feature.items() if key in _INPUTS}


_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "labels"}


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer tagging."""
    return (Ner,)
