"""Metrics of labels, numbers and tags, as ``evaluate`` modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate


def _info(description: str, citation: str, value: Any) -> evaluate.MetricInfo:
    features = datasets.Features({"predictions": value, "references": value})
    return evaluate.MetricInfo(description=description, citation=citation, inputs_description="", features=features)


class Classification(evaluate.Metric):  # type: ignore[misc]
    """Accuracy, precision, recall and F1 as means over the labels that occur, Matthews correlation."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("classification metrics", "scikit-learn", datasets.Value("string"))

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        from sklearn import metrics

        labels = sorted({*references})
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            references, predictions, labels=labels, average="macro", zero_division=0
        )
        return {
            "accuracy": metrics.accuracy_score(references, predictions),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "matthews_correlation": metrics.matthews_corrcoef(references, predictions),
        }


class MultiLabel(evaluate.Metric):  # type: ignore[misc]
    """F1 over all pairs of row and label, F1 as the mean over the labels that occur, rows that are right whole."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("multi-label metrics", "scikit-learn", datasets.Sequence(datasets.Value("string")))

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        from sklearn import metrics
        from sklearn.preprocessing import MultiLabelBinarizer

        table = MultiLabelBinarizer().fit([*references, *predictions])
        wanted, said = table.transform(references), table.transform(predictions)
        occurring = [at for at in range(len(table.classes_)) if wanted[:, at].any()]
        return {
            "f1_micro": metrics.f1_score(wanted, said, average="micro", zero_division=0),
            "f1_macro": metrics.f1_score(wanted, said, average="macro", labels=occurring, zero_division=0),
            "subset_accuracy": metrics.accuracy_score(wanted, said),
        }


class Correlation(evaluate.Metric):  # type: ignore[misc]
    """Pearson and Spearman correlation; 0 where one side is constant, as a model that has learnt nothing is."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("correlations", "scipy.stats", datasets.Value("float32"))

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from scipy import stats

        if len(set(predictions)) < 2 or len(set(references)) < 2:
            return {"pearson": 0.0, "spearman": 0.0}
        return {
            "pearson": float(stats.pearsonr(predictions, references).statistic),
            "spearman": float(stats.spearmanr(predictions, references).statistic),
        }


class Seqeval(evaluate.Metric):  # type: ignore[misc]
    """Precision, recall and F1 of whole entities (seqeval), and accuracy of the tags."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("entity metrics", "Nakayama 2018, seqeval", datasets.Sequence(datasets.Value("string")))

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        from seqeval import metrics

        said, wanted = [list(tags) for tags in predictions], [list(tags) for tags in references]
        return {
            "seqeval_precision": metrics.precision_score(wanted, said, zero_division=0),
            "seqeval_recall": metrics.recall_score(wanted, said, zero_division=0),
            "seqeval_f1": metrics.f1_score(wanted, said, zero_division=0),
            "seqeval_accuracy": metrics.accuracy_score(wanted, said),
        }
