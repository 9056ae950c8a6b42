"""Extractive question answering: the span of a context that answers a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Row, Task, TaskContext

#: tokens that neighbouring windows of a long context share
STRIDE = 64
#: spans tried at each end, and their longest length in tokens
BEST = 20
LONGEST_ANSWER = 30


class Qa(Task):
    """Start and end of the answer; contexts longer than the model reads are seen through overlapping windows."""

    name = "qa"
    title = "Extractive question answering"
    aliases = ("question_answering", "extractive_qa", "reading_comprehension", "squad")
    family = "qa"
    heads: ClassVar[Mapping[str, str]] = {"encoder": "question_answering"}
    columns = (
        Column("context", "text", ("passage", "paragraph", "document", "text")),
        Column("question", "text", ("query",)),
        Column("answers", "answers", ("answer", "label")),
    )
    metrics = ("squad_f1", "exact_match")
    default_models = ("roberta-base", "distilbert-base-uncased", "all-minilm-l6-v2")
    default_max_length = 384

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """Question and context."""
        return (row["question"], row["context"])

    def target_text(self, row: Row) -> str:
        """The first answer; empty where there is none."""
        texts = row["answers"]["text"]
        return str(texts[0]) if texts else ""

    def check_row(self, row: Row) -> str | None:
        """Answers must stand in the context where they say they do (a missing start is looked up)."""
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        if not starts:
            row["answers"]["answer_start"] = starts = [row["context"].find(text) for text in texts]
        if len(texts) != len(starts):
            return f"{len(texts)} answers and {len(starts)} starts"
        for text, start in zip(texts, starts, strict=True):
            if row["context"][start : start + len(text)] != text:
                return f"the answer {text[:40]!r} does not stand at {start} of the context"
        return None

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Windows over the contexts, with the answer's first and last token (0 where a window lacks it).

        ``row`` and ``offsets`` lead from a window's tokens back to the text; offsets outside the context are -1.
        """
        from datasets import Dataset

        encoded = context.tokenizer(
            [_at_most_half(row["question"], context) for row in rows],
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=context.max_length,
            stride=min(STRIDE, context.max_length // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owner = encoded.pop("overflow_to_sample_mapping")
        mapping = encoded.pop("offset_mapping")
        starts, ends, offsets = [], [], []
        for window, index in enumerate(owner):
            inside = [part == 1 for part in encoded.sequence_ids(window)]
            spans = [list(span) if ok else [-1, -1] for span, ok in zip(mapping[window], inside, strict=True)]
            start, end = _answer_tokens(spans, rows[index]["answers"])
            starts.append(start + (context.prepended_positions if start else 0))
            ends.append(end + (context.prepended_positions if end else 0))
            offsets.append(spans)
        positions = {"start_positions": starts, "end_positions": ends}
        return Dataset.from_dict({**dict(encoded), **positions, "row": owner, "offsets": offsets})

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Pads to the longest of the batch."""
        from transformers import DataCollatorWithPadding

        pad = DataCollatorWithPadding(context.tokenizer)
        left_out = {"row", "offsets"}
        return lambda features: dict(pad([{k: v for k, v in row.items() if k not in left_out} for row in features]))

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The best span over all windows of a row, as text."""
        first, last = predictions[0], predictions[1]
        best: dict[int, tuple[float, str]] = {}
        for window, (index, spans) in enumerate(zip(encoded["row"], encoded["offsets"], strict=True)):
            shift = context.prepended_positions
            start_scores = first[window][shift : shift + len(spans)]
            end_scores = last[window][shift : shift + len(spans)]
            score, text = _best_span(start_scores, end_scores, spans, rows[index]["context"])
            if index not in best or score > best[index][0]:
                best[index] = (score, text)
        return [best[index][1] for index in range(len(rows))]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Exact match and token F1 in SQuAD's normalisation, the best over the answers of a row."""
        return compute(self.metrics, predictions, [row["answers"]["text"] or [""] for row in rows])


def _at_most_half(question: str, context: TaskContext) -> str:
    """The question, cut off where it would leave the context less than half the length."""
    read = context.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans, room = read["offset_mapping"], context.max_length // 2
    return question if len(spans) <= room else question[: spans[room - 1][1]]


def _answer_tokens(spans: Sequence[Sequence[int]], answers: Mapping[str, list[Any]]) -> tuple[int, int]:
    """First and last token of the first answer, or (0, 0) where the window does not hold it whole."""
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    touching = [at for at, (low, high) in enumerate(spans) if low >= 0 and low < end and high > begin]
    if not touching or spans[touching[0]][0] > begin or spans[touching[-1]][1] < end:
        return 0, 0
    return touching[0], touching[-1]


def _best_span(starts: Any, ends: Any, spans: Sequence[Sequence[int]], text: str) -> tuple[float, str]:
    allowed = [at for at, (low, _) in enumerate(spans) if low >= 0]
    top_starts = sorted(allowed, key=lambda at: -float(starts[at]))[:BEST]
    top_ends = sorted(allowed, key=lambda at: -float(ends[at]))[:BEST]
    found = [(float(starts[a] + ends[b]), a, b) for a in top_starts for b in top_ends if a <= b < a + LONGEST_ANSWER]
    if not found:
        return float("-inf"), ""
    score, a, b = max(found)
    return score, text[spans[a][0] : spans[b][1]]


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer extractive question answering."""
    return (Qa,)
