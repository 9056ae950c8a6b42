"""Every registered method under the contract, on every architecture whose shape is known, and in a second process."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peftselect.errors import InputError
from peftselect.method import ApplyContext, Method, resolve_values
from peftselect.modeling import count_parameters
from peftselect.plugin_manager import PluginHost
from peftselect.shape import ModelShape
from peftselect.testing import MethodContract
from peftselect.testing.models import logits
from tests.test_shapes import QUESTIONS, build

METHODS = PluginHost.load(external=False).methods()
#: a process that knows nothing of peftselect until an adapter of one of our tuners comes: argv[1] is a list of
#: {name, auto, base, adapter, own, quantized, tensors}
PLAIN = """
import json, sys
import torch, transformers
from peft import PeftModel
from safetensors.torch import load_file
for job in sorted(json.load(open(sys.argv[1])), key=lambda job: job["own"]):
    if job["own"]:
        import peftselect
    assert job["own"] == ("peftselect" in sys.modules)
    auto = getattr(transformers, job["auto"])
    if job["adapter"] is None:
        model = auto.from_pretrained(job["base"])
    else:
        four_bits = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32)
        base = auto.from_pretrained(job["base"], **({"quantization_config": four_bits} if job["quantized"] else {}))
        for module in base.modules():
            if job["quantized"] and hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        model = PeftModel.from_pretrained(base, job["adapter"])
    tensors = load_file(job["tensors"])
    expected = tensors.pop("expected")
    with torch.no_grad():
        print(job["name"], float((model.eval()(**tensors).logits - expected).abs().max()))
"""


def test_there_are_methods() -> None:
    assert len(METHODS) >= 10


@pytest.fixture(params=list(METHODS), scope="class")
def each_method(request: pytest.FixtureRequest) -> None:
    request.cls.method = type(METHODS[request.param])


@pytest.mark.usefixtures("each_method")
class TestEveryMethod(MethodContract):
    """The suite that a third party inherits, over whatever is registered: on two architectures."""

    breadth = "two architectures"


@pytest.mark.slow
@pytest.mark.usefixtures("each_method")
class TestEveryMethodOnTheOtherArchitectures(MethodContract):
    """The same on the architectures which are left, without what looks at all of them anyway."""

    breadth = "other architectures"
    test_describes_itself = test_defaults_lie_in_their_ranges = None  # type: ignore[assignment]
    test_counts_are_exact = test_memory_hook_answers = None  # type: ignore[assignment]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("each_method")
class TestEveryMethodOnEveryArchitecture(MethodContract):
    """The same under every head."""


class TestPrefixMadeByANetwork(MethodContract):
    """The same for a network that is thrown away after training."""

    method = type(METHODS["prefix_tuning_peft"])
    variants = ({"prefix_projection": True, "encoder_hidden_size": 24},)


@pytest.mark.parametrize(("kind", "index"), QUESTIONS, ids=[f"{kind}-{index}" for kind, index in QUESTIONS])
def test_counts_are_exact_on_every_architecture(kind: str, index: int) -> None:
    counted = 0
    built: dict[str, tuple[Any, ModelShape] | None] = {}
    for name, method in METHODS.items():
        for head in sorted(method.heads):
            if head not in built:
                try:
                    built[head] = build(kind, index, head)
                except (InputError, ValueError):  # no such head; tests/test_shapes.py says which there must be
                    built[head] = None
            if (found := built[head]) is None:
                continue
            model, shape = found
            values = resolve_values(method, shape)
            if shape.architecture not in method.architectures or method.unsupported(shape, values):
                continue
            wrapped = method.apply(copy.deepcopy(model), values, ApplyContext(shape, "test", 10))
            assert count_parameters(wrapped)[0] == method.trainable_parameters(shape, values), f"{name} {head}"
            counted += 1
            break
    assert counted >= 6


def _job(method: Method, folder: Path) -> dict[str, Any]:
    """Train and save one method on its first tiny model, with the inputs and logits that a reader must see again."""
    import torch
    from safetensors.torch import save_file

    from peftselect.modeling import AUTO_CLASSES
    from peftselect.testing.models import model_inputs

    contract = MethodContract()
    contract.method = type(method)  # type: ignore[misc]
    case = next(iter(contract.cases()))
    model = contract.wrap(case)
    contract.train(model, case)
    model.save_pretrained(folder)
    tensors = {**model_inputs(case), "expected": logits(model, case)}
    save_file({name: torch.clone(item).contiguous() for name, item in tensors.items()}, folder / "tensors.safetensors")
    return {
        "name": method.name,
        "auto": AUTO_CLASSES[case.shape.head.kind],
        "base": case.base.load_from if method.saves_adapter else str(folder),
        "adapter": str(folder) if method.saves_adapter else None,
        "own": '"PSEL_' in (folder / "adapter_config.json").read_text() if method.saves_adapter else False,
        "quantized": method.quantized_base == "required",
        "tensors": str(folder / "tensors.safetensors"),
    }


def test_a_second_process_with_plain_peft_gives_the_same_logits(tmp_path: Path) -> None:
    jobs = []
    alone = {name: method for name, method in METHODS.items() if not method.needs}
    for name, method in alone.items():
        (tmp_path / name).mkdir()
        jobs.append(_job(method, tmp_path / name))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    (tmp_path / "plain.py").write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "plain.py"), str(tmp_path / "jobs.json")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    differences = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    assert set(differences) == set(alone)
    assert max(differences.values()) <= 1e-5, differences
