"""What the checks find in rows, and that they find nothing where all is well."""

from __future__ import annotations

from peftselect.data_checks import check_data
from peftselect.plugin_manager import host

CLASSIFICATION, SUMMARIZATION = host().task("classification"), host().task("summarization")


def row(text: str, label: str = "a") -> dict[str, str]:
    return {"text": text, "label": label}


def test_rows_in_order_give_no_findings() -> None:
    report = check_data(CLASSIFICATION, [row("one"), row("two", "b")], [row("three")], [row("four")])
    assert not report.overlap and not report.duplicates.count and not report.conflicts.count
    assert report.lines() == [
        "labels: a 50 %, b 50 %",
        "inputs of 3 characters (median), 3 (99 %), 3 (longest)",
    ]


def test_overlap_is_found_through_case_blanks_punctuation_and_unicode_forms() -> None:
    train = [row("The caf\u00e9, opened!"), row("other")]
    test = [row("the  CAFE\u0301 opened", "b"), row("new")]
    report = check_data(CLASSIFICATION, train, [], test)
    assert {names: found.count for names, found in report.overlap.items()} == {"train and test": 1}
    assert report.overlap_sentence == "train and test share 1 row, for example 'the CAFE\u0301 opened'"
    assert report.lines()[0] == report.overlap_sentence


def test_validation_and_test_are_compared_too_but_a_set_not_with_itself() -> None:
    shared = [row("same")]
    assert "validation and test" in check_data(CLASSIFICATION, [row("x")], shared, [row("same")]).overlap
    assert not check_data(CLASSIFICATION, [row("x")], shared, shared).overlap


def test_texts_of_punctuation_alone_are_told_apart() -> None:
    assert not check_data(CLASSIFICATION, [row("!!!")], [], [row("???")]).overlap


def test_duplicates_and_conflicts_are_different_things() -> None:
    report = check_data(CLASSIFICATION, [row("x"), row("X."), row("x", "b"), row("y")])
    assert (report.duplicates.count, report.conflicts.count) == (1, 1)
    assert "1 row of the training data repeat an earlier one" in report.lines()
    assert "1 input with different answers, for example 'x'" in report.lines()


def test_free_text_may_answer_in_two_ways() -> None:
    rows = [{"source": "x", "target": "a"}, {"source": "x", "target": "b"}]
    assert check_data(SUMMARIZATION, rows).conflicts.count == 0


def test_choices_belong_to_the_input() -> None:
    task = host().task("multiple_choice")
    first = {"question": "why", "choices": ["aa", "b"], "label": 0}
    second = {"question": "why", "choices": ["aa", "c"], "label": 1}
    report = check_data(task, [first], [], [second])
    assert not report.overlap


def test_unbalanced_and_many_labels_are_said() -> None:
    rows = [row(f"t{at}", "a" if at else "b") for at in range(20)]
    assert check_data(CLASSIFICATION, rows).lines()[0].endswith("(unbalanced: read F1 beside accuracy)")
    many = [row(f"t{at}", f"l{at % 9}") for at in range(27)]
    assert check_data(CLASSIFICATION, many).lines()[0] == "9 labels of 3 to 3 rows each"


def test_the_report_is_plain_json() -> None:
    document = check_data(CLASSIFICATION, [row("one"), row("one")], [], [row("one")]).to_json()
    assert document["overlap"]["train and test"]["count"] == 1
    assert document["characters"] == {"p50": 3, "p99": 3, "max": 3}
