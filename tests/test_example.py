"""The embedded example: its data, its model's size and tokenizer, and that tuning it is worth the while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peftselect.example import SPLITS, example_data, example_model, settings
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def dialogues():
    """The generator, which lives beside the build script."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import example_dialogues
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return example_dialogues


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    return {
        split: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for split, path in example_data().items()
    }


def test_the_splits_have_the_columns_and_sizes_that_are_promised(rows, dialogues) -> None:
    assert {split: len(found) for split, found in rows.items()} == dialogues.SPLITS
    assert tuple(rows) == SPLITS
    for row in (row for found in rows.values() for row in found):
        assert set(row) == {"dialogue", "summary"} and all(row.values())


def test_no_dialogue_occurs_twice_after_normalising(rows, dialogues) -> None:
    keys = [dialogues.normalise(row["dialogue"]) for found in rows.values() for row in found]
    assert len(keys) > 1000
    assert len(set(keys)) == len(keys)


def test_the_shipped_data_are_what_the_generator_makes(rows, dialogues) -> None:
    assert dialogues.splits() == rows
    assert dialogues.splits(seed=1) != rows


def test_pretraining_sees_neither_the_shipped_dialogues_nor_a_summary(rows, dialogues) -> None:
    shipped = {dialogues.normalise(row["dialogue"]) for found in rows.values() for row in found}
    summaries = {row["summary"] for found in rows.values() for row in found}
    pairs = dialogues.pretraining_rows(2000, seed=7)
    assert len(pairs) == 2000
    for source, answer in pairs:
        question, dialogue = source.split("\n", 1)
        assert question.startswith("question: ")
        assert dialogues.normalise(dialogue) not in shipped
        assert answer not in summaries


def test_every_answer_is_made_of_words_of_its_dialogue(dialogues) -> None:
    for source, answers in dialogues.pretraining_rows(500, seed=3):
        words = set(dialogues.normalise(source).split()) | {"they", "the", "a"}
        assert set(dialogues.normalise(answers).split()) <= words, (source, answers)


def test_the_model_is_small() -> None:
    from safetensors import safe_open

    weights = example_model() / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    with safe_open(weights, "pt") as file:
        sizes = [file.get_slice(name) for name in list(file.keys())]
        assert {piece.get_dtype() for piece in sizes} == {"F16"}
        parameters = sum(_product(piece.get_shape()) for piece in sizes)
    assert 1_000_000 < parameters <= 3_000_000
    assert f"{parameters:,} parameters" in (example_model() / "README.md").read_text()


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def test_the_tokenizer_writes_every_shipped_text_back_and_knows_every_byte(rows) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(example_model() / "tokenizer.json"))
    unknown = tokenizer.token_to_id("<unk>")
    texts = [text for found in rows.values() for row in found for text in row.values()]
    for text in [*texts, "naïve café — “quotes” Привет 你好 🙂", "a1b2: (C), d/e_f"]:
        ids = tokenizer.encode(text).ids
        assert unknown not in ids
        assert tokenizer.decode(ids) == text


def test_inputs_and_summaries_fit_the_lengths_of_the_settings(rows) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(example_model() / "tokenizer.json"))
    recipe = settings().recipe
    everything = [row for found in rows.values() for row in found]
    room_for_a_prompt = 32
    longest = max(len(tokenizer.encode(row["dialogue"]).ids) for row in everything)
    assert longest + room_for_a_prompt <= recipe["max_length"]
    assert max(len(tokenizer.encode(row["summary"]).ids) for row in everything) <= recipe["max_target_length"]


def test_the_data_can_be_rebuilt_by_the_documented_command(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "build_example.py"
    assert "python benchmarks/build_example.py" in script.read_text()
    command = [sys.executable, str(script), "--only", "data", "--output", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    for split, path in example_data().items():
        assert (tmp_path / "data" / f"{split}.jsonl").read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_tuning_raises_rouge_by_thirty_points_within_two_minutes(peftselect, tmp_path: Path) -> None:
    started = time.monotonic()
    # one thread bounds what two cores need from above, and does not spin when others use the machine
    done = peftselect("run", "--output", "out", "--json", OMP_NUM_THREADS="1")
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["candidate"]["method"] == settings().method
    assert record["metric"] == "rougeL"
    assert record["scores"]["rougeL"]["value"] - record["baseline"]["rougeL"]["value"] >= 0.30
    assert seconds < 120 or os.getloadavg()[0] > 3, f"{seconds:.0f} s"
