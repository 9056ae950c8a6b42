"""Metrics of generated text and of answer spans, as ``evaluate`` modules; a row may have several references."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import datasets
import evaluate

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_WORD = re.compile(r"\w+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def _info(description: str, citation: str) -> evaluate.MetricInfo:
    features = {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
    return evaluate.MetricInfo(
        description=description, citation=citation, inputs_description="", features=datasets.Features(features)
    )


class UnicodeTokenizer:
    """Words of any script, in lower case; rouge_score's own keeps a to z and digits alone."""

    def tokenize(self, text: str) -> list[str]:
        """Words of ``text``."""
        return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """ROUGE F-measures, the best over a row's references, averaged over the rows (Lin 2004)."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("ROUGE-1, -2, -L and -Lsum", "Lin 2004, ROUGE: a package for automatic evaluation of summaries")

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(_ROUGE_TYPES, tokenizer=UnicodeTokenizer())
        totals = dict.fromkeys(_ROUGE_TYPES, 0.0)
        for prediction, targets in zip(predictions, references, strict=True):
            best = scorer.score_multi([_sentences(target) for target in targets], _sentences(prediction))
            for name in _ROUGE_TYPES:
                totals[name] += best[name].fmeasure
        return {name: total / max(len(predictions), 1) for name, total in totals.items()}


def _sentences(text: str) -> str:
    """One sentence a line, which is what ROUGE-Lsum compares."""
    return _SENTENCE_END.sub("\n", text.strip())


class Bleu(evaluate.Metric):  # type: ignore[misc]
    """Corpus BLEU by sacreBLEU (Post 2018), as a fraction."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("sacreBLEU, 0..1", "Post 2018, A call for clarity in reporting BLEU scores")

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        import sacrebleu

        most = max((len(targets) for targets in references), default=1)
        # sacreBLEU wants one list for each place; rows with fewer references have None there
        streams = [[targets[at] if at < len(targets) else None for targets in references] for at in range(most)]
        return {"bleu": sacrebleu.corpus_bleu(list(predictions), streams).score / 100}


class Squad(evaluate.Metric):  # type: ignore[misc]
    """Exact match and token F1 after SQuAD's normalisation, the best over a row's answers (Rajpurkar et al. 2016)."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("SQuAD exact match and F1, 0..1", "Rajpurkar et al. 2016, SQuAD")

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        def mean(measure: Callable[[str, str], float]) -> float:
            values = [
                max(measure(prediction, target) for target in targets)
                for prediction, targets in zip(predictions, references, strict=True)
            ]
            return sum(values) / max(len(values), 1)

        return {"exact_match": mean(_exact), "squad_f1": mean(_token_f1)}


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra blanks."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _exact(prediction: str, target: str) -> float:
    return float(normalise_answer(prediction) == normalise_answer(target))


def _token_f1(prediction: str, target: str) -> float:
    said, wanted = normalise_answer(prediction).split(), normalise_answer(target).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
