"""The predictor: right by hand on a small example, better than chance with whole tables held out, honest when blind."""

from __future__ import annotations

import pytest

from peftselect import predictor
from peftselect.features import MIN_METHODS, median, observations
from peftselect.plugin_manager import host
from peftselect.predictor import Predictor, held_out, regret
from peftselect.record import RunRecord, Score
from peftselect.results import shipped_records

LEARNED = observations(shipped_records(host()))
FACTS = {
    "task": "classification",
    "task_family": "classification",
    "data_regime": "high",
    "model_type": "bert",
    "metric": "accuracy",
    "total_parameters": 100_000_000,
}


def run(method: str, value: float, **changes: object) -> RunRecord:
    problem = {
        "task": "classification",
        "family": "classification",
        "dataset": "sst2",
        "model": "bert-base",
        "model_type": "bert",
        "total_parameters": 100_000_000,
        "regime": "high",
    }
    scores = {"accuracy": Score(value)}
    return RunRecord("ours", "ok", {**problem, **changes}, {"method": method}, "accuracy", scores)


ONE_CELL = [run("lora", 0.94), run("ia3", 0.90), run("bitfit", 0.91), run("prompt_tuning", 0.80)]


def test_median() -> None:
    assert (median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])) == (2.0, 2.5)


def test_distances_from_the_median_in_points() -> None:
    found = {item.method: round(item.difference, 6) for item in observations(ONE_CELL)}
    assert found == {"lora": 3.5, "ia3": -0.5, "bitfit": 0.5, "prompt_tuning": -10.5}


def test_errors_count_downwards_and_percentages_as_they_are() -> None:
    rates = {"lora": 5.0, "ia3": 7.0, "bitfit": 6.0, "full_finetuning": 8.0}
    problem = {"task": "speech_recognition", "scale": "percent"}
    records = [
        RunRecord("ours", "ok", problem, {"method": name}, "wer", {"wer": Score(rate, None, False)})
        for name, rate in rates.items()
    ]
    assert {item.method: item.difference for item in observations(records)} == {
        "lora": 1.5,
        "ia3": -0.5,
        "bitfit": 0.5,
        "full_finetuning": -1.5,
    }


def test_repeated_runs_are_averaged_and_failed_ones_left_out() -> None:
    again = [*ONE_CELL, run("lora", 0.90), RunRecord("ours", "oom", {}, {"method": "lora"})]
    found = {item.method: item for item in observations(again)}
    assert round(found["lora"].difference, 6) == 1.5
    assert len(found["lora"].records) == 2


def test_too_few_methods_compare_nothing() -> None:
    assert observations(ONE_CELL[: MIN_METHODS - 1]) == []


def test_a_small_example_by_hand() -> None:
    """One comparison: 3.5 points shrink by 1/(1+3), what is left by 1/(1+6), and again by 1/(1+3)."""
    prediction = Predictor.fit(ONE_CELL).predict(FACTS, "lora")
    assert prediction is not None
    first = 3.5 / 4
    second = (3.5 - first) / 7
    third = (3.5 - first - second) / 4
    assert prediction.difference_points == pytest.approx(first + second + third)
    assert prediction.low < prediction.difference_points < prediction.high
    assert (prediction.records, prediction.local_records, prediction.sources) == (1, 1, ("ours",))
    assert (
        prediction.because
        == "1 comparison with other methods, 1 of them of classification tasks, 1 of these with high data"
    )


def test_another_family_gets_the_general_effect_alone_and_less_of_it_from_one_paper() -> None:
    prediction = Predictor.fit(ONE_CELL).predict({**FACTS, "task_family": "qa", "task": "qa"}, "lora")
    assert prediction is not None
    assert prediction.difference_points == pytest.approx(3.5 / 4 / 3)
    assert prediction.local_records == 0
    assert prediction.because == "1 comparison with other methods, none of them of qa tasks"


def test_a_collapse_says_bad_but_not_how_bad() -> None:
    records = [*ONE_CELL[:3], run("prompt_tuning", 0.10)]
    worse = Predictor.fit(records).predict(FACTS, "prompt_tuning")
    bad = Predictor.fit([*ONE_CELL[:3], run("prompt_tuning", 0.905 - predictor.CLIP_POINTS / 100)])
    same = bad.predict(FACTS, "prompt_tuning")
    assert worse is not None and same is not None
    assert worse.difference_points == pytest.approx(same.difference_points)


def test_a_method_without_records_is_abstained_from_or_judged_like_another() -> None:
    fitted = Predictor.fit(ONE_CELL)
    assert fitted.predict(FACTS, "unheard_of") is None
    assert fitted.predict(FACTS, "unheard_of", like="neither") is None
    like, own = fitted.predict(FACTS, "qlora", like="lora"), fitted.predict(FACTS, "lora")
    assert like is not None and own is not None
    assert like.difference_points == own.difference_points
    assert like.because.endswith("(qlora has no records of its own: those of lora)")


def test_no_records_at_all() -> None:
    assert Predictor.fit([]).predict(FACTS, "lora") is None


def test_the_metric_itself_needs_two_data_sets_of_a_like_model() -> None:
    second = [run(item.candidate["method"], item.scores["accuracy"].value - 0.1, dataset="rte") for item in ONE_CELL]
    assert Predictor.fit(ONE_CELL).predict(FACTS, "lora").expected is None  # type: ignore[union-attr]
    fitted = Predictor.fit([*ONE_CELL, *second])
    prediction = fitted.predict(FACTS, "lora")
    assert prediction is not None and prediction.expected is not None
    expected = prediction.expected
    assert expected.metric == "accuracy"
    assert expected.value == pytest.approx((0.905 + 0.805) / 2 + prediction.difference_points / 100)
    assert 0 <= expected.low < expected.value < expected.high <= 1
    for change in ({"total_parameters": 7_000_000_000}, {"model_type": "t5"}, {"metric": "f1"}, {"task": "ner"}):
        other = fitted.predict({**FACTS, **change}, "lora")
        assert other is not None and other.expected is None


def test_better_than_chance_with_tables_data_sets_or_models_held_out() -> None:
    by_table = regret(LEARNED, lambda cell: cell.source)
    by_data = regret(LEARNED, lambda cell: cell.dataset)
    by_model = regret(LEARNED, lambda cell: cell.model)
    for found in (by_table, by_data, by_model):
        assert 0 < found["predictor"] < 0.75 * found["random"]
    assert by_data["predictor"] < by_data["always_lora"]


def test_a_held_out_group_is_not_learned_from() -> None:
    first, *_ = {item.cell.source: None for item in LEARNED}
    others = Predictor([item for item in LEARNED if item.cell.source != first])
    for cell, methods in held_out(LEARNED, lambda cell: cell.source).items():
        if cell.source == first:
            for method, (predicted, _, _) in methods.items():
                facts = {"task_family": cell.family, "data_regime": cell.regime, "task": cell.task}
                prediction = others.predict(facts, method)
                assert prediction is not None
                assert prediction.difference_points == pytest.approx(predicted)


def test_the_interval_holds_four_times_out_of_five_with_tables_held_out() -> None:
    pairs = [item for methods in held_out(LEARNED, lambda cell: cell.source).values() for item in methods.values()]
    inside = sum(abs(truth - predicted) <= half for predicted, half, truth in pairs)
    assert len(pairs) > 300
    assert 0.75 <= inside / len(pairs) <= 0.85


def test_prompt_tuning_collapses_where_it_was_seen_to() -> None:
    facts = {**FACTS, "task": "summarization", "task_family": "generation", "data_regime": "low"}
    fitted = Predictor(LEARNED)
    lora, prompt = fitted.predict(facts, "lora"), fitted.predict(facts, "prompt_tuning")
    assert lora is not None and prompt is not None
    assert prompt.high < lora.difference_points
