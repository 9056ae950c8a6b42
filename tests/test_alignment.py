"""Alignment is answered by advice: the recipe becomes a script of trl's DPO, and ``run`` says who trains it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import peftselect
from peftselect import api
from peftselect.errors import InputError, UnsupportedError

QUESTION: dict[str, Any] = {"vram_gib": 24, "num_examples": 5000}


def test_run_says_who_trains_it(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="is not trained here but by trl's DPO") as caught:
        peftselect.plan_run("alignment", "smollm2-135m", train=tmp_path / "no-such-file.jsonl")
    assert "recommend --task alignment --export" in str(caught.value.hint)


@pytest.mark.parametrize(("method", "rate"), [("lora", 5e-6), ("full_finetuning", 5e-7), ("qlora", 5e-6)])
def test_the_script_hands_trl_what_was_recommended(
    method: str, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import transformers

    answer = peftselect.recommend("dpo", "smollm2-135m", method=method, **QUESTION)
    assert api.export(answer, tmp_path / "dpo.py", "pairs.jsonl") == method
    script = (tmp_path / "dpo.py").read_text()
    handed: dict[str, Any] = {}

    @dataclasses.dataclass
    class DPOConfig(transformers.TrainingArguments):
        """The arguments of trl's that a script may use, beside the Trainer's own."""

        beta: float = 0.0
        max_length: int | None = None
        model_init_kwargs: dict[str, Any] | None = None

    class DPOTrainer:
        def __init__(self, **arguments: Any) -> None:
            handed.update(arguments)

        def train(self) -> None:
            handed["trained"] = True

        def save_model(self) -> None:
            handed["saved"] = True

    trl = ModuleType("trl")
    trl.DPOConfig, trl.DPOTrainer = DPOConfig, DPOTrainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trl", trl)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **given: given["data_files"])
    monkeypatch.chdir(tmp_path)
    assert answer.recommended is not None
    precision = answer.recommended.candidate.recipe.precision
    exec(script.replace(f"{precision}=True", "use_cpu=True"), {})  # bf16 needs a card here
    assert handed["train_dataset"] == "pairs.jsonl"
    assert handed["model"] == "HuggingFaceTB/SmolLM2-135M"
    arguments, recipe = handed["args"], answer.recommended.candidate.recipe
    assert arguments.learning_rate == rate
    assert arguments.beta == 0.1
    pairs = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert pairs == recipe.micro_batch_size * recipe.gradient_accumulation_steps == 8
    assert handed["trained"] and handed["saved"]
    if method == "full_finetuning":
        assert "peft_config" not in handed
    else:
        assert handed["peft_config"].r == answer.recommended.candidate.values["r"]
        assert ("quantization_config" in arguments.model_init_kwargs) == (method == "qlora")


def test_the_answer_says_that_it_is_advice(tmp_path: Path) -> None:
    answer = peftselect.recommend("alignment", "smollm2-135m", **QUESTION)
    assert any("trained by trl's DPO" in note for note in answer.notes)
    with pytest.raises(InputError, match="summarization is trained by peftselect run"):
        api.export(peftselect.recommend("summarization", "t5-small", **QUESTION), tmp_path / "x.py")
    with pytest.raises(InputError, match="cannot be written"):
        api.export(answer, tmp_path / "no" / "x.py")


def test_a_method_that_plain_peft_lacks_is_not_exported(tmp_path: Path) -> None:
    answer = peftselect.recommend("alignment", "smollm2-135m", method="adapter_houlsby", **QUESTION)
    with pytest.raises(UnsupportedError, match="no configuration that plain peft knows"):
        api.export(answer, tmp_path / "x.py")


def test_the_command_writes_the_script(peftselect: Any, tmp_path: Path) -> None:
    done = peftselect(
        "recommend", "--task", "alignment", "--model", "smollm2-135m", "--vram", "24", "--method", "lora",
        "--export", tmp_path / "dpo.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "peftselect run" not in done.stdout
    compile((tmp_path / "dpo.py").read_text(), "dpo.py", "exec")
