"""Semantic search: queries and passages as vectors of one encoder, near each other where they belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.metrics import compute
from peftselect.task import Column, Objective, Row, Task, TaskContext

#: factor on the cosines before the softmax (sentence-transformers' default)
SCALE = 20.0
#: passages kept of a ranking
KEPT = 10


class SemanticSearch(Task):
    """A bi-encoder tuned on pairs of a query and a passage, the other passages of a batch being its wrong answers.

    The vector of a text is the mean of the encoder's last states over its tokens. Scored by ranking, for each query,
    every passage of the rows that are scored.
    """

    name = "semantic_search"
    title = "Semantic search"
    aliases = ("retrieval", "information_retrieval", "passage_retrieval", "bi_encoder", "embedding", "code_search")
    family = "retrieval"
    heads: ClassVar[Mapping[str, str]] = {"encoder": "feature_extraction"}
    columns = (
        Column("query", "text", ("question", "anchor", "sentence1", "docstring", "text_a", "source")),
        Column(
            "passage", "text", ("positive", "document", "answer", "context", "sentence2", "code", "text_b", "target")
        ),
    )
    metrics = ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10")
    default_models = ("all-minilm-l6-v2",)
    default_max_length = 256
    notes = (
        "Each micro-batch is its own set of wrong answers: keep it large (--batch-size 32 or more, not accumulated).",
        "No table of the thesis measures search, of text or of code: what ranks the methods here was measured on other "
        "tasks.",
    )

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The query."""
        return (row["query"],)

    def target_text(self, row: Row) -> str:
        """The passage."""
        return str(row["passage"])

    def objective(self, context: TaskContext) -> Objective | None:
        """Contrast within the batch."""
        return InBatchContrast()

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Ids of the queries and of the passages, a pair a row."""
        from datasets import Dataset

        queries, passages = (_ids([row[name] for row in rows], context) for name in ("query", "passage"))
        return Dataset.from_dict({"input_ids": queries, "passage_ids": passages})

    def encode_eval(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Ids of every query, then of every passage."""
        from datasets import Dataset

        return Dataset.from_dict({"input_ids": _ids([row[at] for at in ("query", "passage") for row in rows], context)})

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Queries and then passages as the rows of one batch, padded to the longest."""

        def collate(features: list[Row]) -> dict[str, Any]:
            texts = [row[at] for at in ("input_ids", "passage_ids") for row in features if at in row]
            return dict(context.tokenizer.pad([{"input_ids": ids} for ids in texts], return_tensors="pt"))

        return collate

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """The nearest passages of each query, best first."""
        queries, passages = predictions[: len(rows)], predictions[len(rows) :]
        texts = list(dict.fromkeys(row["passage"] for row in rows))
        first = {row["passage"]: at for at, row in reversed(list(enumerate(rows)))}
        cosines = queries @ passages[[first[text] for text in texts]].T
        return [[texts[at] for at in (-row).argsort(kind="stable")[:KEPT]] for row in cosines]

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Ranking metrics, a query that has several passages counting once."""
        relevant: dict[str, list[str]] = {}
        ranked: dict[str, list[str]] = {}
        for texts, row in zip(predictions, rows, strict=True):
            relevant.setdefault(row["query"], []).append(row["passage"])
            ranked.setdefault(row["query"], texts)
        return compute(self.metrics, list(ranked.values()), list(relevant.values()))


class InBatchContrast(Objective):
    """Multiple negatives ranking loss (Henderson et al. 2017; sentence-transformers' MultipleNegativesRankingLoss).

    A passage that occurs twice in a batch is no wrong answer to its own query.
    """

    has_loss = True

    def loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Cross-entropy of each query's own passage among all of the batch."""
        import torch

        vectors = self.predict(model, inputs)
        pairs = len(vectors) // 2
        scores = SCALE * vectors[:pairs] @ vectors[pairs:].T
        ids = inputs["input_ids"][pairs:]
        own = torch.eye(pairs, dtype=torch.bool, device=ids.device)
        repeated = (ids[:, None] == ids[None]).all(-1) & ~own
        return torch.nn.functional.cross_entropy(
            scores.masked_fill(repeated, float("-inf")), torch.arange(pairs, device=ids.device)
        )

    def predict(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Vectors of length 1: means over the tokens; positions that a method puts first are passed over."""
        import torch

        mask = inputs["attention_mask"]
        states = model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        states = states[:, -mask.shape[1] :].float()
        weights = mask.unsqueeze(-1).to(states.dtype)
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1).clamp(min=1), dim=-1)


def _ids(texts: list[str], context: TaskContext) -> list[list[int]]:
    found: list[list[int]] = context.tokenizer(texts, max_length=context.max_length, truncation=True)["input_ids"]
    return found


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer semantic search."""
    return (SemanticSearch,)
