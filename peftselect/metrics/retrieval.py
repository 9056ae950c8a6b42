"""Metrics of ranked lists, as ``evaluate`` modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import datasets
import evaluate

DEPTH = 10


class Retrieval(evaluate.Metric):  # type: ignore[misc]
    """Recall at 1 and 10, nDCG at 10 (binary relevance) and reciprocal rank within 10, means over the queries.

    A prediction is a query's ranked texts, best first; its references are the texts that are relevant, at least one.
    """

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="ranking metrics, 0..1",
            citation="Järvelin and Kekäläinen 2002, Cumulated gain-based evaluation of IR techniques",
            inputs_description="",
            features=datasets.Features({"predictions": texts, "references": texts}),
        )

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        hits = [
            [text in set(relevant) for text in ranked[:DEPTH]]
            for ranked, relevant in zip(predictions, references, strict=True)
        ]
        wanted = [len(set(relevant)) for relevant in references]

        def mean(measure: Callable[[list[bool], int], float]) -> float:
            return sum(measure(found, count) for found, count in zip(hits, wanted, strict=True)) / max(len(hits), 1)

        return {
            "ndcg_at_10": mean(lambda found, count: _gain(found) / _gain([True] * min(count, DEPTH))),
            "mrr_at_10": mean(lambda found, _: 1 / (found.index(True) + 1) if True in found else 0.0),
            "recall_at_1": mean(lambda found, count: sum(found[:1]) / count),
            "recall_at_10": mean(lambda found, count: sum(found) / count),
        }


def _gain(found: Sequence[bool]) -> float:
    return sum(hit / math.log2(place + 2) for place, hit in enumerate(found))
