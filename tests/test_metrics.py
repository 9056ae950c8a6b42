"""Metrics against values known by hand; offline, in any script, with several references."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peftselect.errors import UnknownNameError
from peftselect.metrics import METRICS, compute

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def test_rouge_counts_shared_words() -> None:
    # 3 of 3 predicted words and of 6 reference words: F = 2 * 1 * 0.5 / 1.5
    scores = compute(ROUGE, ["the cat sat"], [["the cat sat on the mat"]])
    assert scores["rouge1"] == pytest.approx(2 / 3)
    assert scores["rouge2"] == pytest.approx(2 * 1 * (2 / 5) / (1 + 2 / 5))
    assert scores["rougeL"] == pytest.approx(2 / 3)


def test_rouge_takes_the_best_reference_of_each_row() -> None:
    scores = compute(["rouge1"], ["a b", "c"], [["x y", "a b"], ["c"]])
    assert scores["rouge1"] == 1.0


def test_rouge_reads_every_script() -> None:
    scores = compute(ROUGE, ["мама мыла раму", "ein Fuß"], [["мама мыла раму"], ["ein Fuß"]])
    assert set(scores.values()) == {1.0}


def test_rouge_lsum_compares_sentence_by_sentence() -> None:
    swapped = compute(ROUGE, ["It ran. The cat sat."], [["The cat sat. It ran."]])
    assert swapped["rougeLsum"] == 1.0
    assert swapped["rougeL"] < 1.0


def test_an_empty_prediction_scores_nothing() -> None:
    assert set(compute((*ROUGE, "bleu", "squad_f1", "exact_match"), [""], [["something"]]).values()) == {0.0}


def test_bleu_is_a_fraction_and_takes_rows_with_unlike_numbers_of_references() -> None:
    text = "the quick brown fox jumps over the lazy dog"
    assert compute(["bleu"], [text, text], [[text], ["other words here", text]])["bleu"] == pytest.approx(1.0)


def test_squad_normalises_articles_case_and_punctuation() -> None:
    scores = compute(["exact_match", "squad_f1"], ["The Eiffel Tower!", "big red dog"], [["eiffel tower"], ["red dog"]])
    assert scores["exact_match"] == 0.5
    assert scores["squad_f1"] == pytest.approx((1 + 2 * 2 / 5) / 2)


def test_classification_metrics_are_means_over_labels() -> None:
    said, true = ["a", "a", "b", "b"], ["a", "b", "b", "b"]
    scores = compute(["accuracy", "precision", "recall", "f1", "matthews_correlation"], said, true)
    assert scores["accuracy"] == 0.75
    assert scores["precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["recall"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores["matthews_correlation"] == pytest.approx(1 / 3**0.5)


def test_correlations_of_known_numbers_and_of_a_constant() -> None:
    scores = compute(["pearson", "spearman"], [1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert scores["pearson"] == pytest.approx(0.98198, abs=1e-4)
    assert scores["spearman"] == pytest.approx(1.0)
    assert compute(["pearson", "spearman"], [1.0, 1.0], [1.0, 2.0]) == {"pearson": 0.0, "spearman": 0.0}


def test_seqeval_counts_whole_entities() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"]]
    said = [["B-PER", "O", "O", "B-LOC"]]
    scores = compute(["seqeval_f1", "seqeval_precision", "seqeval_recall", "seqeval_accuracy"], said, true)
    assert scores == {"seqeval_f1": 0.5, "seqeval_precision": 0.5, "seqeval_recall": 0.5, "seqeval_accuracy": 0.75}


def test_transcripts_are_scored_by_their_errors() -> None:
    # 5 words, of which one is wrong and one is missing; 17 letters and blanks, of which 1 + 4 are
    said, true = ["the cat sit", "a"], ["the cat sat", "a dog"]
    scores = compute(["wer", "cer", "per"], said, true)
    assert scores["wer"] == scores["per"] == pytest.approx(2 / 5)
    assert scores["cer"] == pytest.approx(5 / 16)


def test_recall_that_weighs_classes_alike_and_f1_that_weighs_rows() -> None:
    # recalls 1, 1/3; F1: joy 2*1*1/3... precision of joy 1/3, recall 1: 1/2; anger precision 1, recall 1/3: 1/2
    scores = compute(["unweighted_average_recall", "weighted_f1"], ["joy", "anger", "joy", "joy"],
                     ["joy", "anger", "anger", "anger"])  # fmt: skip
    assert scores["unweighted_average_recall"] == pytest.approx((1 + 1 / 3) / 2)
    assert scores["weighted_f1"] == pytest.approx((1 * 0.5 + 3 * 0.5) / 4)


def test_slots_count_with_their_values() -> None:
    said, true = [["city=rom", "day=monday"]], [["city=rome", "day=monday"]]
    scores = compute(["slot_f1", "slot_value_cer"], said, true)
    assert scores["slot_f1"] == pytest.approx(0.5)
    assert scores["slot_value_cer"] == pytest.approx(1 / 10)


def test_every_metric_computes() -> None:
    inputs = {"text": (["a"], [["a"]]), "Classification": (["a"], ["a"]), "Correlation": ([1.0], [1.0]),
              "Seqeval": ([["O"]], [["O"]]), "MultiLabel": ([["O"]], [["O"]]),
                  "Retrieval": ([["O"]], [["O"]]), "Spoken": (["a"], ["a"]), "ErrorRates": (["a"], ["a"]),
                  "Slots": ([["city=rome"]], [["city=rome"]])}  # fmt: skip
    assert len(METRICS) > 15
    for name, info in METRICS.items():
        said, true = inputs["text" if info.module in ("text", "generated") else info.cls]
        assert -1.0 <= compute([name], said, true)[name] <= 1.0


def test_unknown_metrics_and_unlike_lengths_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'rougel'"):
        compute(["rougel"], [], [])
    with pytest.raises(ValueError, match="1 predictions and 2 references"):
        compute(["accuracy"], ["a"], ["a", "b"])


def test_metrics_need_no_network_and_leave_no_files(tmp_path) -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from peftselect.metrics import compute\n"
        "print(compute(['rougeL'], ['a'], [['a']]))"
    )
    environment = {"HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{'rougeL': 1.0}", done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".arrow", ".lock")]
