"""The command `estimate`: what it prints, its JSON, its exit codes and its errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

KEYS = {
    "method": str,
    "schema": int,
    "source": str,
    "peak_allocated_bytes": int,
    "trainable_parameters": int,
    "total_parameters": int,
    "adapter_bytes": int,
    "breakdown": dict,
    "error_band": dict,
    "fits": bool,
    "verdict": str,
    "changes": list,
    "note": str,
    "peak_reserved_bytes": type(None),
    "smallest_capacity_bytes": type(None),
}
LORA = ("estimate", "--no-trace", "--model", "flan-t5-base", "--method", "lora", "--set", "r=16")


def document(peftselect: Any, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The JSON of a call that ends with this exit code and says nothing else."""
    done = peftselect(*arguments, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_json(peftselect: Any) -> None:
    found = document(peftselect, *LORA, "--vram", "16")
    assert {name: type(value) for name, value in found.items()} == KEYS
    assert found["schema"] == 1
    assert found["source"] == "closed_form"
    assert found["trainable_parameters"] == 1_769_472  # thesis 4.1
    assert found["total_parameters"] == 249_347_328
    assert found["adapter_bytes"] == pytest.approx(4 * 1_769_472, abs=64)
    assert found["verdict"] == "fits"
    assert found["changes"] == []
    inside = sum(size for name, size in found["breakdown"].items() if name != "cuda_context")
    assert inside == found["peak_allocated_bytes"]


def test_what_does_not_fit_ends_with_3_and_says_what_would(peftselect: Any) -> None:
    arguments = ("estimate", "--no-trace", "--model", "flan-t5-base", "--method", "full_finetuning", "--vram", "4")
    found = document(peftselect, *arguments, code=3)
    assert not found["fits"]
    assert found["verdict"] == "does_not_fit"
    assert found["changes"]
    for change in found["changes"]:
        assert set(change) == {"change", "peak_bytes"}
        assert change["peak_bytes"] < found["peak_allocated_bytes"]
    done = peftselect(*arguments)
    assert done.returncode == 3
    assert "does not fit in 4 GiB" in done.stdout
    assert "What would make it fit" in done.stdout
    assert found["changes"][0]["change"].split(" with ")[0] in done.stdout


def test_nothing_makes_it_fit(peftselect: Any) -> None:
    done = peftselect("estimate", "--no-trace", "--model", "llama-2-70b", "--method", "lora", "--vram", "4")
    assert done.returncode == 3
    assert "take a smaller model" in done.stdout


def test_the_breakdown_for_people(peftselect: Any) -> None:
    done = peftselect(*LORA, "--task", "summarization", "--batch-size", "4", "--vram", "8", "--gradient-checkpointing")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("lora on flan-t5-base: ")
    assert (
        lines[1].strip() == "bf16, micro-batch 4, inputs of 512 tokens, outputs of 128, adamw, gradient checkpointing"
    )
    assert "█" in lines[3]
    for part in ("weights", "adapter", "optimizer", "activations", "cuda context", "fits in 8 GiB"):
        assert part in done.stdout
    assert "1,769,472 of 249 M" in done.stdout


def test_options_reach_the_price(peftselect: Any) -> None:
    def peak(*more: str) -> int:
        return int(document(peftselect, *LORA, *more)["peak_allocated_bytes"])

    plain = peak()
    for lighter in (("--batch-size", "2"), ("--max-length", "128"), ("--max-target-length", "16")):
        assert peak(*lighter) < plain, lighter
    assert peak("--precision", "fp32") > plain
    shared = document(peftselect, *LORA, "--devices", "4", "--sharding", "zero3")["breakdown"]
    assert shared["weights"] < document(peftselect, *LORA)["breakdown"]["weights"] / 3


def test_a_folder_and_a_task_head(peftselect: Any, tiny_models: Any) -> None:
    arguments = (
        "estimate",
        "--no-trace",
        "--model",
        str(tiny_models("bert")),
        "--method",
        "head_only",
        "--task",
        "classification",
    )
    found = document(peftselect, *arguments, "--num-labels", "5", "--max-length", "64")
    assert found["trainable_parameters"] == 32 * 5 + 5 + 32 * 32 + 32  # the checkpoint is without a pooler


def test_qlora_brings_its_quantised_base(peftselect: Any) -> None:
    arguments = (
        "estimate",
        "--no-trace",
        "--model",
        "llama-2-7b",
        "--max-length",
        "64",
        "--batch-size",
        "1",
        "--method",
    )
    packed, plain = (document(peftselect, *arguments, name)["breakdown"]["weights"] for name in ("qlora", "lora"))
    assert packed < plain / 2


@pytest.mark.parametrize(("arguments", "text"), [
    (("--method", "lorra"), "unknown method 'lorra'"),
    (("--model", "no-such-model"), "unknown base model 'no-such-model'"),
    (("--model", "./nowhere"), "there is no folder ./nowhere"),
    (("--task", "juggling"), "unknown task 'juggling'"),
    (("--task", "classification", "--method", "prompt_tuning"), "Prompt tuning cannot serve flan-t5-base"),
    (("--set", "r=lots"), "r='lots' is not a whole number"),
    (("--set", "size=2"), "unknown setting of lora 'size'"),
    (("--optimizer", "lion"), "unknown optimizer 'lion'"),
    (("--batch-size", "0"), "batch size 0 is too small"),
    (("--max-length", "0"), "max length 0 is too small"),
    (("--vram", "-4"), "--vram -4 is not an amount of memory"),
    (("--method", "prefix_tuning_peft", "--gradient-checkpointing"), "does not work with gradient checkpointing"),
    (("--method", "full", "--quantization", "nf4"), "cannot train over a quantised base"),
    (("--model", "gpt2", "--max-length", "2000"), "a length of 2000 is more than gpt2 can read"),
    (("--model", "gpt2", "--task", "ner"), "cannot serve ner"),
    (("--model", "gpt2", "--method", "head_only"), "Head only cannot train a causal_lm head"),
])  # fmt: skip
def test_errors_are_one_line_a_hint_and_exit_code_2(peftselect: Any, arguments: tuple[str, ...], text: str) -> None:
    given = {"--model": "flan-t5-base", "--method": "lora"}
    words = [word for name, value in given.items() if name not in arguments for word in (name, value)]
    done = peftselect("estimate", "--no-trace", *words, *arguments)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert done.stdout == ""
    assert lines[0].startswith("error: ")
    assert text in lines[0]
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
