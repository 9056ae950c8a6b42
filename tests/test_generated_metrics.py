"""Metrics of code summaries, translations, mathematics, several labels: by hand, and by the reference packages."""

from __future__ import annotations

import math
import random

import pytest

from peftselect.metrics import compute


def test_smoothed_bleu_by_hand() -> None:
    # unigrams 3/4, bigrams (1+1)/(3+1), trigrams (0+1)/(2+1), fourgrams (0+1)/(1+1): the fourth root of 1/16
    assert compute(["bleu4"], ["a b c d"], [["a b x d"]])["bleu4"] == pytest.approx(0.5)
    # every n-gram is right and the text is short: exp(1 - (5 + 1) / (3 + 1))
    short = compute(["bleu4"], ["Returns the sum"], [["returns the sum of numbers"]])
    assert short["bleu4"] == pytest.approx(math.exp(-0.5))
    assert compute(["bleu4"], ["", "x"], [["a"], ["a"]])["bleu4"] == 0.0


def test_smoothed_bleu_equals_nltk_where_lengths_bring_no_penalty() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    draw = random.Random(1)
    for _ in range(50):
        target = [draw.choice("abcde") for _ in range(6)]
        said = ["a", *(draw.choice("abcde") for _ in range(7))]
        ours = compute(["bleu4"], [" ".join(said)], [[" ".join([*target, "a"])]])["bleu4"]
        theirs = sentence_bleu([[*target, "a"]], said, smoothing_function=SmoothingFunction().method2)
        assert ours == pytest.approx(theirs)


def test_chrf_equals_sacrebleu() -> None:
    import sacrebleu

    said, wanted = ["der Hund läuft", "eine Katze"], [["der Hund rennt"], ["eine Katze schläft", "eine Katze"]]
    streams = [["der Hund rennt", "eine Katze schläft"], ["der Hund rennt", "eine Katze"]]
    assert compute(["chrf"], said, wanted)["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, streams).score / 100)
    assert compute(["chrf"], ["ab"], [["ab"]])["chrf"] == 1.0


@pytest.mark.parametrize(
    ("said", "strict", "lenient"),
    [
        ("5 + 5 = <<5+5=10>>10\n#### 1,010", 1.0, 1.0),
        ("it is 1010", 0.0, 1.0),
        ("#### 1010 and then 7", 1.0, 0.0),
        ("#### 1010.", 0.0, 1.0),  # GSM8K's own pattern takes the full stop along
        ("#### 11", 0.0, 0.0),
        ("nothing", 0.0, 0.0),
    ],
)
def test_answers_are_read_as_gsm8k_reads_them(said: str, strict: float, lenient: float) -> None:
    scores = compute(["answer_accuracy", "last_number_accuracy"], [said], [["so far\n#### 1010"]])
    assert scores == {"answer_accuracy": strict, "last_number_accuracy": lenient}


def test_labels_that_occur_together_by_hand() -> None:
    scores = compute(["f1_micro", "f1_macro", "subset_accuracy"], [["a"], ["b"], ["c"]], [["a", "b"], ["b"], []])
    # 2 right, 1 wrong, 1 missed; a is found whole, b in one of two rows; one row of three is right
    assert scores == pytest.approx({"f1_micro": 2 / 3, "f1_macro": (1 + 2 / 3) / 2, "subset_accuracy": 1 / 3})
