"""Metrics as ``evaluate`` modules that ship with the package: ``evaluate.load`` would fetch each from a hub.

Every value is a fraction: 0..1, or -1..1 for correlations; BLEU too, where others print 0..100. Importing this package
is light; the modules behind it, which need ``evaluate``, are imported when something is computed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from peftselect.errors import UnknownNameError


@dataclass(frozen=True)
class MetricInfo:
    """Where a metric lives: the module and class that compute it, and which way is better."""

    module: str
    cls: str
    title: str
    higher_is_better: bool = True


METRICS: dict[str, MetricInfo] = {
    "rouge1": MetricInfo("text", "Rouge", "ROUGE-1"),
    "rouge2": MetricInfo("text", "Rouge", "ROUGE-2"),
    "rougeL": MetricInfo("text", "Rouge", "ROUGE-L"),
    "rougeLsum": MetricInfo("text", "Rouge", "ROUGE-Lsum"),
    "bleu": MetricInfo("text", "Bleu", "BLEU (sacreBLEU)"),
    "chrf": MetricInfo("generated", "Chrf", "chrF (sacreBLEU)"),
    "bleu4": MetricInfo("generated", "SmoothBleu4", "smoothed sentence BLEU-4 (CodeXGLUE)"),
    "answer_accuracy": MetricInfo("generated", "GradeSchoolMath", "accuracy of the answer after ####"),
    "last_number_accuracy": MetricInfo("generated", "GradeSchoolMath", "accuracy of the last number"),
    "exact_match": MetricInfo("text", "Squad", "exact match"),
    "squad_f1": MetricInfo("text", "Squad", "token F1 (SQuAD)"),
    "accuracy": MetricInfo("labels", "Classification", "accuracy"),
    "f1": MetricInfo("labels", "Classification", "F1, mean over the labels"),
    "precision": MetricInfo("labels", "Classification", "precision, mean over the labels"),
    "recall": MetricInfo("labels", "Classification", "recall, mean over the labels"),
    "f1_micro": MetricInfo("labels", "MultiLabel", "F1 over all labels of all rows"),
    "f1_macro": MetricInfo("labels", "MultiLabel", "F1, mean over the labels"),
    "subset_accuracy": MetricInfo("labels", "MultiLabel", "share of rows with every label right"),
    "ndcg_at_10": MetricInfo("retrieval", "Retrieval", "nDCG at 10"),
    "mrr_at_10": MetricInfo("retrieval", "Retrieval", "reciprocal rank within 10"),
    "recall_at_1": MetricInfo("retrieval", "Retrieval", "recall at 1"),
    "recall_at_10": MetricInfo("retrieval", "Retrieval", "recall at 10"),
    "matthews_correlation": MetricInfo("labels", "Classification", "Matthews correlation"),
    "pearson": MetricInfo("labels", "Correlation", "Pearson correlation"),
    "spearman": MetricInfo("labels", "Correlation", "Spearman correlation"),
    "seqeval_f1": MetricInfo("labels", "Seqeval", "entity F1 (seqeval)"),
    "seqeval_precision": MetricInfo("labels", "Seqeval", "entity precision (seqeval)"),
    "seqeval_recall": MetricInfo("labels", "Seqeval", "entity recall (seqeval)"),
    "seqeval_accuracy": MetricInfo("labels", "Seqeval", "tag accuracy"),
    "unweighted_average_recall": MetricInfo("speech", "Spoken", "unweighted average recall"),
    "weighted_f1": MetricInfo("speech", "Spoken", "F1, weighted by class"),
    "wer": MetricInfo("speech", "ErrorRates", "word error rate", higher_is_better=False),
    "cer": MetricInfo("speech", "ErrorRates", "character error rate", higher_is_better=False),
    "per": MetricInfo("speech", "ErrorRates", "phoneme error rate", higher_is_better=False),
    "slot_f1": MetricInfo("speech", "Slots", "F1 of slots, type and value"),
    "slot_value_cer": MetricInfo("speech", "Slots", "character error rate of slot values", higher_is_better=False),
}


def compute(names: Iterable[str], predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Values of the metrics ``names`` of decoded predictions against references (lists of texts for text metrics).

    Raises UnknownNameError for a metric that is not in :data:`METRICS`, ValueError when the two differ in length.
    """
    wanted = list(names)
    if unknown := [name for name in wanted if name not in METRICS]:
        raise UnknownNameError("metric", unknown[0], sorted(METRICS))
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references")
    found: dict[str, float] = {}
    for module, cls in dict.fromkeys((METRICS[name].module, METRICS[name].cls) for name in wanted):
        metric = getattr(importlib.import_module(f"{__name__}.{module}"), cls)(keep_in_memory=True)
        found.update(metric.compute(predictions=list(predictions), references=list(references)))
    return {name: float(found[name]) for name in wanted}
