"""A probe: budgets, rounds and candidates by arithmetic, then real ones on tiny models, interrupted ones too."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect import api
from peftselect.cli import main
from peftselect.errors import InputError, UnsupportedError
from peftselect.training import probe
from peftselect.training.halving import Tried, alive, each, parse_budget, survivors
from peftselect.training.interrupts import Interrupted
from peftselect.training.start import start
from peftselect.training.unfinished import newest, work_folder
from tests.test_interrupted import AtStep, order_of, signalled, weights
from tests.test_run import arguments


@pytest.mark.parametrize(
    ("text", "steps", "seconds"),
    [("5m", None, 300.0), ("90s", None, 90.0), ("60steps", 60, None), ("60 steps", 60, None), ("2step", 2, None)],
)
def test_a_budget_is_a_time_or_a_number_of_steps(text: str, steps: int | None, seconds: float | None) -> None:
    budget = parse_budget(text)
    assert (budget.steps, budget.seconds) == (steps, seconds)


@pytest.mark.parametrize(
    ("text", "said"), [("60", "seconds or steps?"), ("1steps", "too little"), ("soon", "not understood")]
)
def test_a_budget_that_could_be_either_is_asked_about(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_budget(text)


def test_the_field_is_halved_within_the_budget() -> None:
    for number in range(2, 9):
        rounds = alive(number)
        assert rounds[0] == number and rounds[-1] == 2
        spent = sum(left * each(480, len(rounds), left) for left in rounds)
        assert 0.8 * 480 <= spent <= 480
    assert alive(6) == [6, 3, 2]


def test_the_better_half_goes_on_and_the_recommended_one_where_they_are_equal() -> None:
    scores = [0.5, 0.7, 0.5, 0.6]
    tried = [Tried(arm, 9, score, 0.0) for arm, score in enumerate(scores)]
    assert survivors(tried, True) == [1, 3]
    assert survivors(tried, False) == [0, 2]
    assert survivors([*tried[:3], Tried(3, 9, None, 0.0, "diverged")], True) == [1, 0]
    alike = [Tried(arm, 9, 0.5, 0.0, loss=loss) for arm, loss in enumerate((None, 0.7, 0.6))]
    assert survivors(alike, True) == survivors(alike, False) == [2, 1]
    assert survivors([Tried(0, 9, None, 0.0, "oom"), Tried(1, 9, None, 0.0, "diverged")], True) == []


@pytest.fixture
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps say enough, as they do not on real data: what is tested of a round is not how long it is."""
    monkeypatch.setattr(probe, "LEAST_STEPS", 4)


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        ("288steps", [(6, 16), (3, 32), (2, 48)]), ("144steps", [(4, 18), (2, 36)]), ("96steps", [(3, 16), (2, 24)]),
        ("36steps", [(2, 18)]), ("10steps", [(2, 5)]),
    ],
)  # fmt: skip
def test_fewer_candidates_rather_than_rounds_that_say_nothing(
    budget: str, rounds: list[tuple[int, int]], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    planned = peftselect.plan_run(**open_order(tmp_path, tiny_models("bert"), budget)).probe
    assert planned is not None and list(planned.planned_steps()) == rounds
    # rates go before methods
    rates = {arm.candidate.set_by.get("learning_rate") == "the probe" for arm in planned.arms}
    assert rates == ({False, True} if len(planned.arms) > 3 else {False})
    methods = {arm.method for arm in planned.arms}
    assert len(methods) == {6: 3, 4: 2, 3: 3, 2: 2}[len(planned.arms)]


def open_order(folder: Path, model: Path, probe: str, **more: Any) -> dict[str, Any]:
    """An order without a method: the recommendation's best ones compete."""
    order = arguments(folder, "classification", model, "any", probe=probe, settings={"num_train_epochs": 4}, **more)
    return {name: value for name, value in order.items() if name != "method"}


@pytest.mark.usefixtures("short_rounds")
def test_what_is_planned(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = open_order(tmp_path, tiny_models("bert"), "72steps")
    plan = peftselect.plan_run(**order)
    assert plan.probe is not None
    arms = [(arm.method, arm.candidate.recipe.learning_rate) for arm in plan.probe.arms]
    assert len(arms) == 6 and arms[0][0] == arms[1][0] == plan.chosen.method
    assert arms[1][1] == pytest.approx(3 * arms[0][1])
    assert all(
        arm.candidate.values["learning_rate"] == rate for arm, (_, rate) in zip(plan.probe.arms, arms, strict=True)
    )
    assert list(plan.probe.planned_steps()) == [(6, 4), (3, 8), (2, 12)]
    assert f"learning_rate={arms[1][1]:g}" in plan.probe.arms[1].command
    fewer = peftselect.plan_run(**{**order, "probe": "32steps"}).probe
    assert fewer is not None and [arm.method for arm in fewer.arms] == [name for name, _ in arms[:4]]
    one = peftselect.plan_run(**order, method="lora").probe
    assert one is not None and [arm.method for arm in one.arms] == ["lora"] * 3
    assert [round(arm.candidate.recipe.learning_rate / one.arms[0].candidate.recipe.learning_rate, 2)
            for arm in one.arms] == [1, 3, 0.33]  # fmt: skip
    rate = {**order["settings"], "learning_rate": 0.004}
    fixed = peftselect.plan_run(**{**order, "settings": rate}).probe
    assert fixed is not None and {arm.candidate.recipe.learning_rate for arm in fixed.arms} == {0.004}
    in_time = peftselect.plan_run(**{**order, "probe": "5m"}).probe
    assert in_time is not None and len(in_time.arms) == 4


@pytest.mark.usefixtures("short_rounds")
@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"method": "lora", "settings": {"learning_rate": 0.1}}, InputError, "nothing to choose from"),
        ({"method": "none"}, UnsupportedError, "trains nothing"),
        ({"method": "lora", "before": ("prune:sparsity=0.3",)}, UnsupportedError, "change the base anew"),
    ],
)
def test_what_cannot_be_probed(
    more: dict[str, Any], kind: type[Exception], said: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        peftselect.plan_run(**{**open_order(tmp_path, tiny_models("bert"), "40steps"), **more})


@pytest.mark.usefixtures("short_rounds")
def test_the_winner_ends_as_a_run_that_was_given_it_by_hand(
    tiny_models: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = open_order(tmp_path, tiny_models("bert"), "32steps")
    result = peftselect.run(**order)
    found = result.record.measured["probe"]
    assert [len(row) for row in found["rounds"]] == [4, 2]
    assert [item["step"] for item in found["rounds"][0]] == [4] * 4
    assert [item["step"] for item in found["rounds"][1]] == [12] * 2
    assert all(0 <= item["score"] <= 1 for row in found["rounds"] for item in row)
    assert (found["steps"], found["extra_steps"]) == (32, 20)
    last = found["rounds"][-1]
    best = max(last, key=lambda item: (item["score"], -item["loss"], -item["arm"]))
    assert found["winner"] == {"method": best["method"], "learning_rate": best["learning_rate"]}
    assert result.record.candidate["method"] == best["method"]
    assert result.record.measured["steps"] == 20
    assert "of 4 candidates" in result.record.note
    settings = {**order["settings"], "learning_rate": best["learning_rate"]}
    again = {**order, "method": best["method"], "settings": settings, "output": tmp_path / "by-hand"}
    again.pop("probe")
    by_hand = peftselect.run(**again)
    assert weights(by_hand.output) == weights(result.output)
    assert by_hand.record.scores == result.record.scores
    advice = json.loads((result.output / "advice.json").read_text())
    assert advice["chosen"]["recipe"]["learning_rate"] == best["learning_rate"]
    assert not work_folder(result.output).exists()


class AtStage:
    """An observer that does something when a stage begins for the nth time, or at a ``step`` of it."""

    def __init__(self, start: str, number: int, act: Callable[[], None], step: int = 0) -> None:
        self.start, self.number, self.act, self.step = start, number, act, step
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)
        if text.startswith(self.start):
            self.number -= 1
            if self.number == 0 and not self.step:
                self.act()

    def progress(self, done: int, total: int, text: str = "") -> None:
        if self.number == 0 and done == self.step:
            self.act()


@pytest.mark.usefixtures("short_rounds")
def test_an_interrupted_probe_goes_on(
    tiny_models: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = open_order(tmp_path, tiny_models("bert"), "32steps")
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
    with pytest.raises(Interrupted):
        peftselect.run(**order, observer=AtStage("probe, round 1", 3, signalled(signal.SIGTERM)))
    with pytest.raises(InputError, match="was interrupted in its probe"):
        peftselect.run(**order)
    plan = api.plan_resumed(order["output"])
    assert plan.probe is not None and not plan.probe.outcome.finished
    with pytest.raises(Interrupted):  # and once more, in the middle of a candidate's second round
        peftselect.resume(order["output"], observer=AtStage("probe, round 2", 2, signalled(signal.SIGTERM), step=9))
    assert len(list(work_folder(order["output"]).glob("probe/*/checkpoint-9/whole.json"))) == 1
    said = AtStage("probe, round", 99, lambda: None)
    result = peftselect.resume(order["output"], observer=said)
    assert sum(text.startswith("probe, round") for text in said.said) == 1
    assert weights(result.output) == weights(whole.output)
    rounds = [
        [[(item["arm"], item["step"], item["score"]) for item in row] for row in run.record.measured["probe"]["rounds"]]
        for run in (whole, result)
    ]
    assert rounds[0] == rounds[1]


@pytest.mark.usefixtures("short_rounds")
def test_a_run_that_is_interrupted_after_its_probe_keeps_it(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = open_order(tmp_path, tiny_models("bert"), "32steps")
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
    with pytest.raises(Interrupted):
        peftselect.run(**order, observer=AtStep(17, signalled(signal.SIGTERM)))
    saved = newest(work_folder(order["output"]))
    assert saved is not None and saved.step == 17
    result = peftselect.resume(order["output"])
    assert weights(result.output) == weights(whole.output)
    assert result.record.measured["probe"]["winner"] == whole.record.measured["probe"]["winner"]


@pytest.mark.usefixtures("short_rounds")
def test_a_probe_in_time_and_on_the_command_line(
    tiny_models: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora")
    words = ["run", "--task", "classification", "--model", order["model"], "--method", "lora", "--device", "cpu"]
    words += ["--train", str(order["train"]), "--eval", str(order["evaluation"]), "--max-length", "48"]
    words += ["--output", str(order["output"]), "--probe", "4s"]
    for more in (["--dry-run"], []):
        with pytest.raises(SystemExit) as done:
            main([*words, *more])
        assert done.value.code == 0
        out = capsys.readouterr().out
        assert "at most 4 s in all: 2 of them" in out
    assert "The probe" in out and "(goes on)" in out and "round 1" in out
    record = json.loads((Path(order["output"]) / "run.json").read_text())
    tried = record["measured"]["probe"]["rounds"][0]
    assert [item["method"] for item in tried] == ["lora", "lora"]
    assert tried[1]["step"] <= tried[0]["step"]
    with pytest.raises(SystemExit) as done:
        main([*words, "--dry-run", "--json", "--probe", "40steps", "--output", str(tmp_path / "other")])
    planned = json.loads(capsys.readouterr().out)["probe"]
    assert planned["rounds_planned"] == [[3, 6], [2, 10]] and len(planned["candidates"]) == 3


@pytest.mark.usefixtures("short_rounds")
def test_a_candidate_that_diverges_is_out(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    plan = peftselect.plan_run(**open_order(tmp_path, tiny_models("bert"), "32steps"))
    assert plan.probe is not None
    arm = plan.probe.arms[1]
    recipe = replace(arm.candidate.recipe, learning_rate=1e9)
    mad = replace(arm, candidate=replace(arm.candidate, recipe=recipe))
    probe = replace(plan.probe, arms=(plan.probe.arms[0], mad))
    found = start(replace(plan, probe=probe)).record.measured["probe"]
    assert [item["status"] for item in found["rounds"][0]] == ["ok", "diverged"]
    assert found["winner"]["learning_rate"] == plan.probe.arms[0].candidate.recipe.learning_rate
    assert found["rounds"][0][1]["score"] is None
