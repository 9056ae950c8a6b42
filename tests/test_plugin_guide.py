"""The package of plugins/README.md, taken from the page as it stands there, installed and used as a third party's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from peftselect.example import example_data, example_model
from tests.documents import read

METHOD = "lora_xs"
DISTRIBUTION = "peftselect-lora-xs"


@dataclass(frozen=True)
class Installed:
    """The guide's package: its source folder, and the folder into which pip installed it."""

    source: Path
    site: Path

    def run(self, *arguments: str, cwd: Path, plugin: bool = True) -> subprocess.CompletedProcess[str]:
        """Run python with (or without) the plugin on the path."""
        paths = {"PYTHONPATH": str(self.site)} if plugin else {}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | paths
        done = subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *arguments: str, cwd: Path):
        """What a ``peftselect`` command answers with ``--json``."""
        return json.loads(self.run("-m", "peftselect", *arguments, "--json", cwd=cwd).stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("guide")
    made = Installed(folder / "package", folder / "site")
    files = [block for block in read("plugins/README.md") if block.file]
    assert len(files) == 4
    for block in files:
        target = made.source / block.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.body, encoding="utf-8")
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    made.run(*pip, "--target", str(made.site), str(made.source), cwd=folder, plugin=False)
    return made


def test_the_page_names_every_file_of_the_package(installed: Installed) -> None:
    named = {block.file for block in read("plugins/README.md") if block.file}
    page = (Path(__file__).parents[1] / "plugins" / "README.md").read_text(encoding="utf-8")
    for name in named:
        assert f"    {name}\n" in page


def test_it_is_listed_with_its_distribution(installed: Installed, tmp_path: Path) -> None:
    answer = installed.json("plugins", cwd=tmp_path)
    assert answer["broken"] == {}
    (mine,) = [item for item in answer["plugins"] if item["name"] == METHOD]
    assert (mine["origin"], mine["version"]) == (DISTRIBUTION, "0.1.0")
    assert METHOD in [item["name"] for item in installed.json("methods", cwd=tmp_path)]
    # 36 attentions of flan-t5-base, two targets each
    assert installed.json("methods", METHOD, cwd=tmp_path)["trainable_parameters"] == 36 * 2 * 16**2


def test_without_the_package_nobody_knows_the_method(peftselect) -> None:
    done = peftselect("methods", METHOD)
    assert done.returncode == 2
    assert f"unknown method '{METHOD}'" in done.stderr


def test_it_is_recommended_among_the_others_and_its_rule_speaks(installed: Installed, tmp_path: Path) -> None:
    answer = installed.json("recommend", "--task", "summarization", "--prefer", "size", "--top", "99", cwd=tmp_path)
    (mine,) = [item for item in answer["candidates"] if item["method"] == METHOD]
    assert mine["hyperparameters"]["r"] == 16
    assert mine["recipe"]["learning_rate"] == pytest.approx(1e-3)
    assert any("Bałazy" in reason["source"] for reason in mine["reasons"])


def test_its_rules_pass_their_own_cases(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("-m", "peftselect", "rules", "check", cwd=tmp_path)
    assert "all as written" in done.stdout
    shown = installed.run("-m", "peftselect", "rules", "lora-xs-when-many-adapters-are-kept", cwd=tmp_path)
    assert "Bałazy" in shown.stdout


def test_it_passes_its_own_conformance_test(installed: Installed) -> None:
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=installed.source)
    assert " passed" in done.stdout and "skipped" not in done.stdout


RELOAD = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

base, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
ids = tokenizer("Anna: Hi Tom!", return_tensors="pt").input_ids
plain = model(input_ids=ids, labels=ids).logits
tuned = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    print(json.dumps({"moved": (tuned(input_ids=ids, labels=ids).logits - plain).abs().max().item()}))
"""


@pytest.mark.slow
def test_it_trains_and_its_adapter_reloads_with_plain_peft(installed: Installed, tmp_path: Path) -> None:
    files = {}
    for split, path in example_data().items():
        files[split] = tmp_path / path.name
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        files[split].write_text("".join(lines[: 64 if split == "train" else 8]), encoding="utf-8")
    data = ["--train", str(files["train"]), "--eval", str(files["validation"]), "--test", str(files["test"])]
    question = ["--task", "summarization", "--model", str(example_model()), *data]
    settings = ["--method", METHOD, "--set", "r=16", "--set", "num_train_epochs=1"]
    record = installed.json("run", *question, *settings, "--output", "out", cwd=tmp_path)
    assert record["candidate"]["method"] == METHOD
    assert record["status"] == "ok"
    done = installed.run("-c", RELOAD, str(example_model()), str(tmp_path / "out"), cwd=tmp_path, plugin=False)
    assert json.loads(done.stdout.splitlines()[-1])["moved"] > 1e-3
