"""``run``, through its public face: what it writes, what it refuses, what it says."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import peftselect
from peftselect.errors import DataError, InputError, NothingFitsError, PeftSelectError, UnsupportedError
from peftselect.plugin_manager import host
from peftselect.record import RunRecord
from peftselect.results import user_store
from peftselect.training.unfinished import newest, work_folder
from tests.samples import SAMPLES

FILES = {"README.md", "run.json", "metrics.json", "predictions.jsonl", "tokenizer.json"}
#: one run for each kind of head and each way of saving: task -> model, method
RUNS = {
    "classification": ("bert", "lora"),
    "similarity": ("distilbert", "full_finetuning"),
    "ner": ("bert", "prompt_tuning"),
    "qa": ("bert", "lora"),
    "multiple_choice": ("roberta", "ia3"),
    "summarization": ("t5", "p_tuning"),
    "text_generation": ("gpt2", "prefix_tuning_peft"),
}


def make_row(task: str, number: int) -> dict[str, Any]:
    """A row of words that the tiny models know; no two numbers give the same row."""
    words = [f"w{(number * 7 + step * step) % 60}" for step in range(4)] + [f"w{number % 60}", f"w{number // 60}"]
    text, good = " ".join(words), number % 2 == 0
    if task == "classification":
        return {"text": f"{text} {'good' if good else 'bad'}", "label": "positive" if good else "negative"}
    if task == "similarity":
        return {"sentence1": text, "sentence2": " ".join(words[:2]), "score": number % 5 / 4}
    if task == "ner":
        return {"tokens": [*words, "paris"], "ner_tags": ["O"] * len(words) + ["B-LOC"]}
    if task == "qa":
        answer = {"text": [words[2]], "answer_start": [text.index(words[2])]}
        return {"context": text, "question": "what ?", "answers": answer}
    if task == "multiple_choice":
        return {"question": text, "choices": ["good", "bad"], "answer": 0 if good else 1}
    if task == "keyword_spotting":
        return SAMPLES[task](number)
    return {"source": text, "target": " ".join(words[:2])}


def write_rows(file: Path, task: str, numbers: range) -> Path:
    """A JSON-lines file of rows."""
    file.write_text("".join(json.dumps(make_row(task, number)) + "\n" for number in numbers))
    return file


def arguments(folder: Path, task: str, model: Path, method: str, **more: Any) -> dict[str, Any]:
    """A small run: 40 rows to train, 12 to validate, 12 to score on."""
    files = {"train": range(40), "evaluation": range(40, 52), "test": range(52, 64)}
    named = {name: write_rows(folder / f"{task}-{name}.jsonl", task, numbers) for name, numbers in files.items()}
    short = {"max_target_length": 8} if task in ("summarization", "text_generation") else {}
    settings = {"num_train_epochs": 1, **more.pop("settings", {})}
    output = folder / f"out-{task}-{method}"
    length = 1 if task == "keyword_spotting" else 48
    fixed = {"method": method, "max_length": length, "settings": settings, "output": output, "device": "cpu"}
    return {"task": task, "model": str(model), **named, **short, **fixed, **more}


Outputs = dict[str, Path]


def run_all(folder: Path, tiny_models: Callable[[str], Path]) -> Outputs:
    """Run each of RUNS; their output folders."""
    return {
        task: peftselect.run(**arguments(folder, task, tiny_models(kind), method)).output
        for task, (kind, method) in RUNS.items()
    }


@pytest.fixture(scope="module")
def outputs(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """The output folder of each of RUNS."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTSELECT_HOME", str(folder / "home"))
        yield run_all(folder, tiny_models)


def read_json(file: Path) -> Any:
    """A JSON file."""
    return json.loads(file.read_text())


@pytest.mark.parametrize("task", RUNS)
def test_the_output_folder_is_whole(outputs: Outputs, task: str) -> None:
    folder, method = outputs[task], RUNS[task][1]
    weights = "model.safetensors" if method == "full_finetuning" else "adapter_model.safetensors"
    assert {weights, *FILES} <= {file.name for file in folder.iterdir()}
    record = RunRecord.from_json(read_json(folder / "run.json"))
    assert record.status == "ok"
    assert record.candidate["method"] == method
    assert set(record.scores) <= set(host().task(task).metrics)
    assert record.measured["trainable_parameters"] == record.predicted["trainable_parameters"]
    assert record.measured["steps"] == 5
    assert record.measured["adapter_bytes"] == pytest.approx((folder / weights).stat().st_size)
    assert record.environment["device"] == "cpu"
    for name in ("steps_per_second", "train_flops", "inference_seconds_per_row", "base_inference_seconds_per_row"):
        assert record.measured[name] > 0, name
    for name in ("first_token_seconds", "base_first_token_seconds"):
        assert (record.measured.get(name, 0) > 0) == (task in ("summarization", "text_generation")), name
    spared = 4 * record.measured["total_parameters"] / record.measured["adapter_bytes"]
    assert record.measured["compression_ratio"] == pytest.approx(spared, rel=0.01)
    assert "peak_memory_bytes" not in record.measured  # that is the name of a card's peak, and this was none


@pytest.mark.parametrize("task", RUNS)
def test_predictions_are_those_that_were_scored(outputs: Outputs, task: str) -> None:
    lines = [json.loads(line) for line in (outputs[task] / "predictions.jsonl").read_text().splitlines()]
    metrics = read_json(outputs[task] / "metrics.json")
    assert len(lines) == metrics["rows"] == 12
    spec = host().task(task)
    rows = peftselect.plan_run(
        **arguments(outputs[task].parent, task, *_model(outputs, task)), overwrite=True
    ).splits.test
    scores = spec.score([line["prediction"] for line in lines], rows)
    assert {name: scores[name] for name in metrics["scores"]} == pytest.approx(metrics["scores"])
    assert [line["target"] for line in lines] == [spec.target_text(row) for row in rows]


def _model(outputs: Outputs, task: str) -> tuple[Path, str]:
    recorded = (outputs[task] / "README.md").read_text().split("base_model: ")[1].splitlines()[0]
    return Path(json.loads(recorded)), RUNS[task][1]


def test_the_card_has_every_number(outputs: Outputs) -> None:
    card = (outputs["classification"] / "README.md").read_text()
    record = read_json(outputs["classification"] / "run.json")
    for number in (
        f"{record['measured']['trainable_parameters']:,}",
        f"{record['scores']['accuracy']['value']:.4f}",
        f"{record['baseline']['accuracy']['value']:.4f}",
        "| rank | 16 |",
        "| changed parameters |",
        "40 training, 12 validation, 12 test rows",
        "12 test rows, which training never saw",
        "labels: negative, positive",
        "peak memory of a training step",
    ):
        assert number in card


RELOAD = """
import json, sys
from pathlib import Path
import torch
for folder in map(Path, sys.argv[1:]):
    code = (folder / "README.md").read_text().split("```python\\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    model, tokenizer = names["model"], names["tokenizer"]
    found = []
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        encoded = tokenizer(*row["input"], return_tensors="pt")
        task = json.loads((folder / "run.json").read_text())["problem"]["task"]
        with torch.no_grad():
            if task == "summarization":
                encoded = tokenizer("summarize: " + row["input"][0], return_tensors="pt")
                ids = model.generate(**encoded, max_new_tokens=8, do_sample=False)[0]
                found.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
            else:
                logits = model(**encoded).logits[0]
                found.append(float(logits[0]) if len(logits) == 1 else model.config.id2label[int(logits.argmax())])
    print(json.dumps(found))
assert not any(name.split(".")[0] == "peftselect" for name in sys.modules)
"""


def test_plain_peft_in_another_process_predicts_the_same(outputs: Outputs) -> None:
    asked = ("classification", "similarity", "summarization")
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *(str(outputs[task]) for task in asked)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for task, line in zip(asked, done.stdout.splitlines(), strict=True):
        lines = (outputs[task] / "predictions.jsonl").read_text().splitlines()
        predicted = [json.loads(item)["prediction"] for item in lines]
        found = json.loads(line)
        assert found == (pytest.approx(predicted, abs=1e-4) if task == "similarity" else predicted)


@pytest.mark.parametrize("method", ["lora", "adalora", "p_tuning", "prefix_tuning_peft", "bitfit"])
def test_the_best_state_is_what_remains(method: str, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    # a rate far too high makes the score jump about, so that the best state is seldom the last
    settings = {"num_train_epochs": 8, "learning_rate": 0.1}
    order = arguments(tmp_path, "classification", tiny_models("bert"), method, settings=settings, max_steps=40)
    order.pop("test")
    random.seed(0)
    result = peftselect.run(**order)
    metrics = read_json(result.output / "metrics.json")
    looks = [look["accuracy"] for look in metrics["history"]["validation"]]
    assert len(looks) >= 3
    assert metrics["scored_on"] == "validation"
    assert metrics["scores"]["accuracy"] == max(looks)
    assert result.record.measured["best_step"] in [look["step"] for look in metrics["history"]["validation"]]


def test_training_learns_and_stops_early(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    settings = {"num_train_epochs": 20, "learning_rate": 3e-3}
    order = arguments(tmp_path, "classification", tiny_models("bert"), "full_finetuning", settings=settings)
    write_rows(Path(order["train"]), "classification", range(100, 260))
    record = peftselect.run(**order).record
    assert record.scores["accuracy"].value == 1.0
    assert record.baseline["accuracy"].value < 0.9
    assert record.measured["stopped_early"]
    assert record.measured["steps"] < 400


def test_whoever_looks_on_is_told_loss_score_and_memory(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    class Looking:
        told: list[tuple[int, int, str]] = []  # noqa: RUF012

        def stage(self, text: str) -> None:
            pass

        def progress(self, done: int, total: int, text: str = "") -> None:
            self.told.append((done, total, text))

    looking = Looking()
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", settings={"num_train_epochs": 4})
    record = peftselect.run(**order, observer=looking).record
    steps = record.measured["steps"]
    done, total, text = [item for item in looking.told if item[1] == 20 and item[2]][-1]
    assert (done, total) == (steps, 20)
    said = re.fullmatch(r"loss \d\.\d{3}, validation \d\.\d{3}, memory ([\d.]+) (GiB|MiB|KiB)", text)
    assert said, text
    now = psutil.Process().memory_info().rss  # of this process, in which the run was
    assert float(said[1]) * {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024}[said[2]] == pytest.approx(now, rel=0.5)


def test_adapters_are_run_and_then_fused(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "adapter_pfeiffer", max_steps=2)
    folders = [peftselect.run(**{**order, "seed": seed, "output": tmp_path / str(seed)}).output for seed in (1, 2)]
    fused = {"adapters": ",".join(map(str, folders)), "num_train_epochs": 1}
    result = peftselect.run(**{**order, "method": "adapter_fusion", "settings": fused, "output": tmp_path / "fused"})
    assert result.record.status == "ok" and result.record.measured["steps"] == 2
    with pytest.raises(UnsupportedError, match="it needs two or more adapters"):
        peftselect.plan_run(**{**order, "method": "adapter_fusion"})


def test_the_seed_decides(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    found = []
    for number, seed in enumerate((3, 3, 4)):
        result = peftselect.run(**{**order, "output": tmp_path / f"seed-{number}", "seed": seed})
        tensors = load_file(result.output / "adapter_model.safetensors")
        found.append((result.record.scores, {name: item.tolist() for name, item in sorted(tensors.items())}))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1]


def test_validation_is_split_off_and_said_so(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", limit=30)
    del order["evaluation"], order["test"]
    plan = peftselect.plan_run(**order)
    again = peftselect.plan_run(**order)
    assert (len(plan.splits.train), len(plan.splits.validation)) == (15, 15)
    assert plan.splits == again.splits
    texts = [row["text"] for row in plan.splits.train + plan.splits.validation]
    assert len(set(texts)) == 30
    assert plan.notes == (
        "no --eval: 15 of 40 training rows were set aside for validation",
        "no --test: the final scores are on the validation rows, which also chose the best state",
        "trained on 15 of the 40 rows",
    )


def test_rows_with_the_same_input_stay_on_one_side(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    del order["evaluation"], order["test"]
    lines = Path(order["train"]).read_text()
    Path(order["train"]).write_text(
        lines
        + lines.upper()
        .replace('"TEXT"', '"text"')
        .replace('"LABEL"', '"label"')
        .replace("POSITIVE", "positive")
        .replace("NEGATIVE", "negative")
    )
    splits = peftselect.plan_run(**order).splits
    train, validation = ({row["text"].lower() for row in part} for part in (splits.train, splits.validation))
    assert not train & validation
    assert len(splits.train) + len(splits.validation) == 80


def test_overlap_stops_the_run(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    write_rows(Path(order["test"]), "classification", range(38, 50))
    with pytest.raises(DataError) as caught:
        peftselect.plan_run(**order)
    assert caught.value.message.startswith("train and test share 2 rows")
    assert "--allow-overlap" in caught.value.hint
    assert peftselect.plan_run(**order, allow_overlap=True).report.overlap


def test_labels_that_training_does_not_know_are_refused(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    Path(order["test"]).write_text('{"text": "w1", "label": "positive"}\n{"text": "w2", "label": "mixed"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:2: label: 'mixed' is not among the training labels") as caught:
        peftselect.plan_run(**order)
    assert caught.value.hint == "they are: negative, positive"


def test_one_label_is_nothing_to_learn(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    Path(order["train"]).write_text('{"text": "w1", "label": "positive"}\n{"text": "w2", "label": "positive"}\n')
    with pytest.raises(DataError, match="every row has the label 'positive'"):
        peftselect.plan_run(**order)


def test_a_folder_that_holds_a_run_is_kept(
    outputs: Outputs, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", output=outputs["classification"])
    before = (outputs["classification"] / "run.json").read_bytes()
    with pytest.raises(InputError, match="already holds a run") as caught:
        peftselect.run(**order)
    assert "--overwrite" in caught.value.hint
    assert (outputs["classification"] / "run.json").read_bytes() == before


def test_overwrite_replaces_the_whole_run(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    first = peftselect.run(**order)
    (first.output / "left-over.txt").write_text("of the first run")
    second = peftselect.run(**order, overwrite=True, seed=5)
    assert read_json(first.output / "run.json")["seed"] == second.record.seed == 5
    assert not (first.output / "left-over.txt").exists()
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def _file_in_the_way(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def _file_above(folder: Path) -> Path:
    return _file_in_the_way(folder) / "below"


def _foreign_files(folder: Path) -> Path:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter1.txt").write_text("years of work")
    return folder / "thesis"


REFUSED = {
    "a file in the way": (_file_in_the_way, "is a file, not a folder"),
    "a file above": (_file_above, "cannot be written"),
    "a folder that cannot be made": (lambda folder: Path("/proc/peftselect/run"), "cannot be written"),
    "files that are no run": (_foreign_files, "holds files that are no run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_outputs_that_cannot_be_used(case: str, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    make, message = REFUSED[case]
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", output=make(tmp_path), overwrite=True)
    with pytest.raises(InputError, match=message) as caught:
        peftselect.run(**order)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    if case == "files that are no run":
        assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, tiny_models: Callable[[str], Path]) -> None:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    broken = tmp_path / "broken"
    model = AutoModelForMaskedLM.from_pretrained(tiny_models("bert"))
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    AutoTokenizer.from_pretrained(tiny_models("bert")).save_pretrained(broken)
    order = arguments(tmp_path, "classification", broken, "lora")
    with pytest.raises(PeftSelectError, match="training diverged: the loss is no number after step 1 ") as caught:
        peftselect.run(**order)
    assert "--set learning_rate=" in caught.value.hint
    assert caught.value.exit_code == 2
    assert not Path(order["output"]).exists()
    assert [record.status for record in user_store().read()] == ["diverged"]


def test_running_out_of_memory_is_recorded(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from peftselect import modeling

    def too_large(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(modeling, "build", too_large)
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    with pytest.raises(NothingFitsError, match=r"the device ran out of memory$") as caught:
        peftselect.run(**order, degrade=False)
    assert "a smaller --max-length" in caught.value.hint
    assert [record.status for record in user_store().read()] == ["oom"]
    assert not Path(order["output"]).exists()


def test_a_quantised_base_is_scored_and_tuned(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    record = peftselect.run(**arguments(tmp_path, "classification", tiny_models("llama"), "qlora")).record
    assert record.candidate["recipe"]["quantization"] == "nf4"
    assert record.baseline.keys() == record.scores.keys()
    assert record.measured["trainable_parameters"] == record.predicted["trainable_parameters"]
    assert "BitsAndBytesConfig(load_in_4bit=True" in (tmp_path / "out-classification-qlora" / "README.md").read_text()


def test_several_devices_become_accumulation(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", devices=2, batch_size=8)
    result = peftselect.run(**order)
    assert result.record.candidate["recipe"]["micro_batch_size"] == 4
    assert result.record.candidate["recipe"]["gradient_accumulation_steps"] == 2
    assert result.record.measured["steps"] == 5
    assert "trains on one device, with 2 times the accumulation in place of 2 devices" in result.notes


def test_the_method_is_recommended_unless_asked_for(
    peftselect: Callable[..., Any], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    del order["method"]
    asked = words(order)
    done = peftselect("run", *asked, "--dry-run", "--json")
    advised = peftselect(
        "recommend", "--task", "classification", "--model", tiny_models("bert"), "--train", order["train"],
        "--max-length", "48", "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["candidate"]["method"] == json.loads(advised.stdout)["recommended"]["method"]


def test_the_run_is_among_the_results(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    record = peftselect.run(**arguments(tmp_path, "classification", tiny_models("bert"), "lora")).record
    assert [item.id for item in user_store().read()] == [record.id]
    assert record.problem["num_train_examples"] == 40
    assert record.problem["dataset"] == "classification-train"


WRONG: dict[str, tuple[dict[str, Any], type[PeftSelectError], str]] = {
    "no data": ({"train": None}, InputError, "which data"),
    "head only without a head": (
        {"task": "summarization", "kind": "t5", "method": "head_only"}, UnsupportedError, "head_only cannot be run"
    ),
    "too little memory": ({"vram_gib": 0.1}, NothingFitsError, "lora cannot be run: it needs"),
    "unknown setting": ({"settings": {"rang": 4}}, InputError, "rang"),
    "a length in words": ({"settings": {"max_length": "long"}}, InputError, "max_length='long'"),
    "no steps": ({"max_steps": 0}, InputError, "--max-steps 0"),
    "a template without the input": ({"template": "summarize"}, InputError, "lacks {source}"),
    "sharding": ({"devices": 2, "sharding": "zero2", "vram_gib": 8, "batch_size": 8}, InputError, "zero2"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_run_is_said_in_a_line(case: str, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    changes, kind, message = WRONG[case]
    changes = dict(changes)
    task = changes.pop("task", "classification")
    order = arguments(
        tmp_path, task, tiny_models(changes.pop("kind", "bert")), changes.pop("method", "lora"), **changes
    )
    with pytest.raises(kind) as caught:
        peftselect.plan_run(**order)
    assert message in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def words(order: dict[str, Any]) -> list[str]:
    """The same order as words of the command line."""
    settings = [f"{name}={value}" for name, value in order.pop("settings").items()]
    renamed = {"evaluation": "eval"}
    options = [(f"--{renamed.get(name, name).replace('_', '-')}", str(value)) for name, value in order.items()]
    return [word for pair in options for word in pair] + [word for item in settings for word in ("--set", item)]


def test_the_command_shows_scores_and_costs(
    peftselect: Callable[..., Any], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    done = peftselect("run", *words(arguments(tmp_path, "classification", tiny_models("bert"), "lora")))
    assert done.returncode == 0, done.stderr
    output = tmp_path / "out-classification-lora"
    record = read_json(output / "run.json")
    for text in (
        "40 rows to train, 12 to validate, 12 to score on",
        "Before and after",
        f"{record['scores']['accuracy']['value']:.4f}",
        "Predicted and measured",
        "trainable parameters",
        f"PeftModel.from_pretrained(base, '{output}')",
    ):
        assert text in done.stdout
    assert done.stderr.splitlines() == [
        "loading torch, transformers and peft",
        "reading the data into tokens",
        "loading the model",
        "scoring the base model on 12 rows",
        f"training {record['measured']['trainable_parameters']:,} parameters for 5 steps",
        "scoring the tuned model on 12 rows",
        f"writing {output}",
    ]


def test_json_is_the_record_alone(
    peftselect: Callable[..., Any], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    done = peftselect("run", *words(order), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == read_json(order["output"] / "run.json")
    assert done.stderr == ""


def test_dry_run_settles_everything_without_torch(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", settings={"r": 4})
    code = (
        "import sys\nfrom peftselect.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "loaded = {'torch', 'transformers', 'peft', 'datasets', 'evaluate', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *words(order), "--dry-run", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["candidate"]["hyperparameters"]["r"] == 4
    assert plan["rows"] == {"train": 40, "validation": 12, "test": 12}
    assert not (tmp_path / "out-classification-lora").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    settings = {"num_train_epochs": 5000}
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", settings=settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "peftselect", "run", *words(order)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
        # a job that a shell starts in the background inherits that Ctrl-C is ignored, and so would this run
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    said = next(line for line in process.stderr if line.startswith("training"))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert said
    assert process.returncode == 130
    saved = newest(work_folder(order["output"]))
    assert saved is not None
    assert f"interrupted; step {saved.step:,} of 25,000 is saved. To go on:" in rest
    assert f"peftselect run --resume {order['output']}" in rest
    assert "Traceback" not in rest
    assert not order["output"].exists()
