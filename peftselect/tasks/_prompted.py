"""Classification by a masked language model: the text in a prompt, a mask in it, and a word for each label.

Gao et al. 2021 (LM-BFF, arXiv 2012.15723), section 4 (equation 1): the probability of a label is that of its word at
the mask, among the words of all labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftselect.errors import DataError, InputError
from peftselect.task import Objective, Row, Task, TaskContext
from peftselect.tasks._labels import label_id

#: of one text, and of a pair: the paper's manual templates (table 1)
TEMPLATES = {False: "{source} It was {mask}.", True: "{source} ? {mask} , {second}"}
#: words of that table for labels by these names; any other label is its own word
WORDS = {
    "positive": "great", "negative": "terrible", "pos": "great", "neg": "terrible", "entailment": "Yes",
    "contradiction": "No", "not_entailment": "No", "equivalent": "Yes", "not_equivalent": "No", "duplicate": "Yes",
    "not_duplicate": "No", "acceptable": "correct", "unacceptable": "incorrect",
}  # fmt: skip
#: the shortest text that is worth a question; fewer tokens are left where demonstrations are many
FEWEST_TOKENS = 4
#: tokens that joined texts may have beyond those of their parts
_SEAMS = 4


class FillMask(Objective):
    """The loss and the prediction over the words of the labels alone."""

    has_loss = True

    def __init__(self, context: TaskContext) -> None:
        self.words, self.mask = word_ids(context), context.tokenizer.mask_token_id

    def loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Cross entropy over the words of the labels."""
        from torch.nn import functional

        return functional.cross_entropy(self.predict(model, inputs), inputs["labels"])

    def predict(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Logits (rows, labels) of the words at the first mask."""
        logits = model(**{name: item for name, item in inputs.items() if name != "labels"}).logits
        if logits.shape[1] > 1:  # a model that was loaded by other ways speaks at every position
            at = (inputs["input_ids"] == self.mask).int().argmax(dim=1)
            logits = logits.gather(1, at.view(-1, 1, 1).expand(-1, 1, logits.shape[-1]))
        return logits[:, 0, self.words].float()


def word_ids(context: TaskContext) -> list[int]:
    """The token of each label's word as it stands within a text; InputError where two labels share one."""
    tokenizer, labels = context.tokenizer, context.labels
    words = words_of(context)
    order = f"write --set label_words=WORD,WORD in the order of the labels: {', '.join(labels[:10])}"
    if len(words) != len(labels):
        raise InputError(f"label_words has {len(words)} words for {len(labels)} labels", order)
    found: dict[int, str] = {}
    for label, word in zip(labels, words, strict=True):
        token = _first_token(tokenizer, word)
        if token is None:
            raise InputError(f"the word {word!r} of label {label!r} is not in the model's vocabulary", order)
        if token in found:
            raise InputError(f"the words of labels {found[token]!r} and {label!r} begin with one token", order)
        found[token] = label
    return list(found)


def words_of(context: TaskContext) -> tuple[str, ...]:
    """The words that were set; else the paper's where the labels are its own and the model knows them, else the labels'
    own first words."""
    if context.label_words:
        return context.label_words
    labels = context.labels
    known = {**WORDS, "neutral": "Maybe" if "entailment" in labels else "okay"}
    named = [label.replace("_", " ").split(" ")[0] or label for label in labels]
    words = [known.get(label.lower(), name) for label, name in zip(labels, named, strict=True)]
    return tuple(words if all(_first_token(context.tokenizer, word) is not None for word in words) else named)


def _first_token(tokenizer: Any, word: str) -> int | None:
    """The first token of a word within a text, None where the tokenizer does not know it."""
    pieces = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    return pieces[0] if pieces and pieces[0] != tokenizer.unk_token_id else None


def encode(task: Task, rows: Sequence[Row], context: TaskContext) -> Any:
    """Prompts with the number of their label; texts are cut so that mask and demonstrations stay whole."""
    from datasets import Dataset

    tokenizer = context.tokenizer
    word_of = dict(zip(context.labels, words_of(context), strict=False))
    share = context.max_length // (len(context.demonstrations) + 1)
    shown = [filled(task, row, word_of[task.target_text(row)], context, share) for row in context.demonstrations]
    behind = "".join(f" {text}" for text in shown)
    room = context.max_length - (len(tokenizer(behind, add_special_tokens=False)["input_ids"]) if behind else 0)
    texts = [f"{filled(task, row, tokenizer.mask_token, context, room)}{behind}" for row in rows]
    encoded = dict(tokenizer(texts, max_length=context.max_length, truncation=True))
    if any(tokenizer.mask_token_id not in ids for ids in encoded["input_ids"]):
        raise DataError("the prompt's mask does not fit into the input", "give a larger --max-length or shorter words")
    return Dataset.from_dict({**encoded, "labels": [label_id(row["label"], context.labels) for row in rows]})


def filled(task: Task, row: Mapping[str, Any], word: str, context: TaskContext, tokens: int) -> str:
    """One row in the template with ``word`` at the mask, its texts cut so that all of it is about ``tokens`` long."""
    tokenizer, parts = context.tokenizer, task.input_texts(dict(row))
    template = context.template or TEMPLATES[len(parts) > 1]
    if "{mask}" not in template or (len(parts) > 1 and "{second}" not in template):
        lacks = "{second}" if "{mask}" in template else "{mask}"
        raise InputError(
            f"--template lacks {lacks}", "{mask} stands for the label's word, {source} and {second} for the texts"
        )
    frame = template.replace("{mask}", word)
    bare = len(tokenizer(frame.replace("{source}", "").replace("{second}", ""))["input_ids"])
    room = max(tokens - bare - _SEAMS, FEWEST_TOKENS * len(parts))
    texts = [part.replace(tokenizer.mask_token, " ") for part in parts]
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    if sum(lengths) > room:
        fair = room // len(texts)
        spare = room - sum(min(length, fair) for length in lengths)
        texts = [_cut(tokenizer, text, min(length, fair + spare)) for text, length in zip(texts, lengths, strict=True)]
    for name, text in zip(("{source}", "{second}"), texts, strict=False):
        frame = frame.replace(name, text)
    return frame


def _cut(tokenizer: Any, text: str, tokens: int) -> str:
    """The beginning of a text, so many tokens long."""
    cut = tokenizer(
        text, add_special_tokens=False, truncation=True, max_length=max(tokens, 1), return_offsets_mapping=True
    )
    return text[: cut["offset_mapping"][-1][1]] if cut["offset_mapping"] else ""
