"""Metrics of speech: errors a word, a character and a phoneme (jiwer), recall that weighs every class alike, slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import datasets
import evaluate


def _info(description: str, citation: str, value: object) -> evaluate.MetricInfo:
    features = datasets.Features({"predictions": value, "references": value})
    return evaluate.MetricInfo(description=description, citation=citation, inputs_description="", features=features)


class ErrorRates(evaluate.Metric):  # type: ignore[misc]
    """Substitutions, deletions and insertions over the words (or characters) of all references together (jiwer).

    Phonemes are the words of a text that has blanks between them, so that ``per`` is the error a word of it.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info("error rates of transcripts, 0 and up", "Morris et al. 2004; jiwer", datasets.Value("string"))

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        import jiwer

        wanted, said = list(references), list(predictions)
        words = float(jiwer.wer(wanted, said))
        return {"wer": words, "per": words, "cer": float(jiwer.cer(wanted, said))}


class Spoken(evaluate.Metric):  # type: ignore[misc]
    """Unweighted average recall (the mean over the classes that occur) and F1 weighted by how often each occurs."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("UAR and weighted F1", "Schuller et al. 2009; scikit-learn", datasets.Value("string"))

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        from sklearn import metrics

        labels = sorted({*references})
        return {
            "unweighted_average_recall": metrics.recall_score(
                references, predictions, labels=labels, average="macro", zero_division=0
            ),
            "weighted_f1": metrics.f1_score(
                references, predictions, labels=labels, average="weighted", zero_division=0
            ),
        }


class Slots(evaluate.Metric):  # type: ignore[misc]
    """F1 of slots, a slot being right in type and value, and characters wrong in the values of the types expected.

    After SUPERB (Yang et al. 2021), whose F1 looks at types alone in the order they come; here the value counts too.
    Slots are texts ``type=value``.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info("slot F1 and the values' CER", "Yang et al. 2021", datasets.Sequence(datasets.Value("string")))

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        import jiwer

        right = said = wanted = 0
        truths: list[str] = []
        guesses: list[str] = []
        for found, expected in zip(predictions, references, strict=True):
            right += (Counter(found) & Counter(expected)).total()
            said, wanted = said + len(found), wanted + len(expected)
            values = dict(item.partition("=")[::2] for item in found)
            for kind, _, value in (item.partition("=") for item in expected):
                truths.append(value)
                guesses.append(values.get(kind, ""))
        return {
            "slot_f1": 2 * right / (said + wanted) if said + wanted else 1.0,
            "slot_value_cer": float(jiwer.cer(truths, guesses)) if truths else 0.0,
        }
