"""The probe's regret, computed from stored trainings."""

from __future__ import annotations

from typing import Any

import pytest
from peftselect.benchmarks import probe_regret


def arms(scores: list[list[float]], tests: list[float]) -> list[dict[str, Any]]:
    """Four candidates: scores at steps 18 and 54, and on the test rows."""
    return [
        {"validation": dict(zip(("18", "54"), row, strict=True)), "test": test,
         "train_seconds": 9.6, "look_seconds": 1.0}
        for row, test in zip(scores, tests, strict=True)
    ]  # fmt: skip


def test_rounds_are_those_of_the_budget() -> None:
    assert probe_regret.rungs("36steps") == [(2, 18)]
    assert probe_regret.rungs("144steps") == [(4, 18), (2, 54)]


def test_winner_regret_and_price() -> None:
    four = arms([[0.5, 0.6], [0.9, 0.7], [0.8, 0.8], [0.7, 0.7]], [0.5, 0.9, 0.8, 0.7])
    assert probe_regret.winner(four, "36steps") == 2
    assert probe_regret.winner(four, "144steps") == 2
    lost = probe_regret.regrets(four)
    assert lost["without"] == pytest.approx(40) and lost["144steps"] == lost["36steps"] == pytest.approx(10)
    assert lost["any candidate"] == pytest.approx(17.5)
    steps, seconds = probe_regret.extra(four, "144steps")
    assert steps == 3 * 18 + 36 and seconds == pytest.approx(90 * 0.1 + 6)


def test_an_interval_resamples_whole_sets() -> None:
    assert probe_regret.interval({"a": [1.0, 1.0], "b": [1.0]}) == (1.0, 1.0, 1.0)
    mean, low, high = probe_regret.interval({"a": [0.0, 0.0], "b": [3.0]})
    assert (mean, low, high) == (1.0, 0.0, 3.0)


def test_the_stored_trainings_give_the_page_its_table() -> None:
    import json

    page = (probe_regret.STORE.parents[1] / "README.md").read_text(encoding="utf-8")
    lines = probe_regret.summary(json.loads(probe_regret.STORE.read_text(encoding="utf-8"))["runs"])
    table = [line for line in lines if line.startswith("|")]
    assert len(table) > 6 and "\n".join(table) in page
