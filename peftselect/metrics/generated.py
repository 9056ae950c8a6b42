"""Metrics of certain uses of generated text: code summaries, translations, mathematics; as ``evaluate`` modules."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import datasets
import evaluate

_CODE_WORD = re.compile(r"\w+|[^\s\w]")
_LONGEST = 4
_AFTER_HASHES = re.compile(r"#### (\-?[0-9\.\,]+)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
NO_ANSWER = "[invalid]"


def _info(description: str, citation: str) -> evaluate.MetricInfo:
    features = {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
    return evaluate.MetricInfo(
        description=description, citation=citation, inputs_description="", features=datasets.Features(features)
    )


def _mean(
    measure: Callable[[str, Sequence[str]], float], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    values = [measure(prediction, targets) for prediction, targets in zip(predictions, references, strict=True)]
    return sum(values) / max(len(values), 1)


class SmoothBleu4(evaluate.Metric):  # type: ignore[misc]
    """Mean of sentence BLEU-4 with one added to both counts from bigrams on, in lower case, 0..1.

    This is what CodeXGLUE scores code summaries with (Lu et al. 2021, after Lin and Och 2004, ORANGE), and what the
    thesis's table 2.13 prints as a percentage.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info("smoothed sentence BLEU-4, 0..1", "Lu et al. 2021, CodeXGLUE; Lin and Och 2004, ORANGE")

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        return {"bleu4": _mean(sentence_bleu4, predictions, references)}


def sentence_bleu4(prediction: str, targets: Sequence[str]) -> float:
    """Smoothed BLEU-4 of one text against its references, of which the shortest counts for the length."""
    said = _CODE_WORD.findall(prediction.strip().lower())
    wanted = [_CODE_WORD.findall(target.strip().lower()) for target in targets]
    logarithm = 0.0
    for size in range(1, _LONGEST + 1):
        found = _ngrams(said, size)
        most: Counter[tuple[str, ...]] = Counter()
        for words in wanted:
            most |= _ngrams(words, size)
        correct, guessed = (found & most).total(), found.total()
        added = int(size > 1)
        if correct + added == 0:
            return 0.0
        logarithm += math.log((correct + added) / (guessed + added)) / _LONGEST
    penalty = min(0.0, 1 - (min(map(len, wanted)) + 1) / (len(said) + 1))
    return math.exp(logarithm + penalty)


def _ngrams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1))


class Chrf(evaluate.Metric):  # type: ignore[misc]
    """Corpus chrF of character n-grams by sacreBLEU (Popović 2015), as a fraction."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("chrF, 0..1", "Popović 2015, chrF: character n-gram F-score for automatic MT evaluation")

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        import sacrebleu

        most = max((len(targets) for targets in references), default=1)
        # one list for each place; rows with fewer references repeat their first, which changes no best score
        streams = [[targets[at] if at < len(targets) else targets[0] for targets in references] for at in range(most)]
        return {"chrf": sacrebleu.corpus_chrf(list(predictions), streams).score / 100}


class GradeSchoolMath(evaluate.Metric):  # type: ignore[misc]
    """Share of answers that are right: as GSM8K reads them, after ``####``, and as the last number of the text.

    The first is 0 for a model that does not write ``####``, which a base model was never taught (Cobbe et al. 2021);
    the second compares numbers by value, and is the more lenient.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info("accuracy of final answers", "Cobbe et al. 2021, Training verifiers to solve math word problems")

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        def strict(prediction: str, targets: Sequence[str]) -> float:
            said = answer_after_hashes(prediction)
            return float(said != NO_ANSWER and said in {answer_after_hashes(target) for target in targets})

        def lenient(prediction: str, targets: Sequence[str]) -> float:
            said = last_number(prediction)
            return float(said is not None and said in {last_number(target) for target in targets})

        return {
            "answer_accuracy": _mean(strict, predictions, references),
            "last_number_accuracy": _mean(lenient, predictions, references),
        }


def answer_after_hashes(text: str) -> str:
    """The number after the first ``####`` without commas, as GSM8K's own scorer takes it; else ``[invalid]``."""
    found = _AFTER_HASHES.search(text)
    return found.group(1).strip().replace(",", "") if found else NO_ANSWER


def last_number(text: str) -> float | None:
    """The last number of a text by value; None where there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
