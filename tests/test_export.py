"""Handing an adapter to other tools: what they are told, what they are refused, what goes to a hub."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import peftselect
from peftselect.serving.exporting import formats
from tests.test_run import arguments, read_json
from tests.test_serving import said

Runs = dict[str, Path]


@pytest.fixture(scope="module")
def runs(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A LoRA on a causal model, another method on it, a LoRA on a classifier, and a whole model."""
    folder = tmp_path_factory.mktemp("exported")
    wanted = {
        "lora": ("text_generation", "llama", {"r": 12}),
        "ia3": ("text_generation", "llama", {}),
        "classifier": ("classification", "bert", {}),
        "whole": ("text_generation", "llama", {}),
    }
    methods = {"classifier": "lora", "whole": "full_finetuning"}
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTSELECT_HOME", str(folder / "home"))
        for name, (task, kind, settings) in wanted.items():
            order = arguments(folder, task, tiny_models(kind), methods.get(name, name), settings=settings)
            made[name] = peftselect.run(**{**order, "output": folder / name, "max_steps": 2}).output
        yield made


def exported(capsys: pytest.CaptureFixture[str], folder: Path, to: str, output: Path) -> dict[str, object]:
    """What an export says, as JSON."""
    return json.loads(said(capsys, "export", folder, "--to", to, "--output", output, "--json"))


@pytest.mark.parametrize("to", formats())
def test_every_format_is_offered_for_a_plain_lora(
    to: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = exported(capsys, runs["lora"], to, tmp_path)
    assert found["commands"] and found["about"]
    for command in found["commands"]:
        assert len(shlex.split(command)) > 1
    for name, text in found["files"].items():
        assert (tmp_path / name).read_text() == text


def test_servers_are_told_the_rank_the_name_and_the_folder(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = read_json(runs["lora"] / "serving.json")["model"]
    words = shlex.split(exported(capsys, runs["lora"], "vllm", tmp_path)["commands"][0])
    assert words[:3] == ["vllm", "serve", base]
    assert words[words.index("--max-lora-rank") + 1] == "16"  # the next that its kernels know above 12
    assert words[-1] == f"lora={runs['lora']}"
    ask = shlex.split(exported(capsys, runs["lora"], "tgi", tmp_path)["commands"][1])
    assert json.loads(ask[-1])["parameters"]["adapter_id"] == "lora"


@pytest.mark.parametrize("to", ["axolotl", "llama-factory", "trl"])
def test_trainers_get_the_same_recipe(to: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = read_json(runs["lora"] / "run.json")["candidate"]
    files = exported(capsys, runs["lora"], to, tmp_path)["files"]
    document = yaml.safe_load(files[f"lora-{to}.yaml"])
    assert document["learning_rate"] == record["recipe"]["learning_rate"]
    assert document.get("lora_r", document.get("lora_rank")) == 12
    assert document["gradient_accumulation_steps"] == record["recipe"]["gradient_accumulation_steps"]
    targets = next(document[name] for name in ("lora_target_modules", "lora_target") if name in document)
    config = read_json(runs["lora"] / "adapter_config.json")
    assert set(targets if isinstance(targets, list) else targets.split(",")) == set(config["target_modules"])
    if to == "llama-factory":
        data = json.loads(files["dataset_info.json"])["lora"]
        assert Path(data["file_name"]).exists()
        assert data["columns"] == {"prompt": "source", "response": "target"}


REFUSED = [
    ("ia3", "vllm", "it is no LoRA but IA3", "peftselect merge"),
    ("classifier", "tgi", "it is not for text generation", "peftselect merge"),
    ("classifier", "trl", "trains LoRA on causal language models", "peftselect run"),
    ("whole", "vllm", "is a whole model, not an adapter", "as it is"),
    ("lora", "vlm", "unknown format 'vlm'", "did you mean vllm"),
]


@pytest.mark.parametrize(("name", "to", "message", "hint"), REFUSED)
def test_what_a_tool_cannot_take_is_refused(
    name: str, to: str, message: str, hint: str, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "export", runs[name], "--to", to, code=2)
    assert message in text
    assert hint in text


def test_a_dry_push_shows_what_would_go_and_keeps_the_rows_back(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "push", runs["lora"], "me/summarizer", "--dry-run", "--json"))
    assert found["sent_to"] is None
    assert {"README.md", "run.json", "adapter_model.safetensors", "adapter_config.json"} <= set(found["files"])
    assert found["kept_back"] == ["predictions.jsonl"]
    assert "is a folder of this machine" in found["warnings"][0]
    words = ["push", runs["lora"], "me/summarizer", "--dry-run", "--with-predictions"]
    assert "predictions.jsonl" in said(capsys, *words)
    assert "'me/a/b' is no name of a repository" in said(capsys, "push", runs["lora"], "me/a/b", "--dry-run", code=2)


def test_a_hub_that_cannot_be_reached_is_said_in_a_line(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "push", runs["lora"], "me/summarizer", code=2)
    assert "error: me/summarizer could not be written" in text
    assert "hint: `hf auth login`, or --dry-run" in text
