"""How our tuners become known to peft, and what peft then does with their adapters."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.errors import InputError, PluginError, UnsupportedError
from peftselect.testing.models import tiny_folder
from peftselect.tuners import registry

#: a tuner as a third party writes it: the plugin's light module, and the one with the tuner
THIRD_PARTY = {
    "acme_plugin.py": """
from peftselect import register_tuners

register_tuners("acme_tuner")
""",
    "acme_tuner.py": """
from dataclasses import dataclass
from typing import ClassVar

import torch
from peftselect import Tuner, TunerConfig, TunerLayer, register_tuner


@dataclass
class ShiftConfig(TunerConfig):
    type_name: ClassVar[str] = "ACME_SHIFT"
    saved_by: str = "peftselect-acme"


class ShiftLayer(TunerLayer):
    adapter_layer_names = ("acme_shift_by",)
    parameter_names = ("acme_shift_by",)

    def make(self, adapter, config):
        return {"by": torch.nn.Parameter(torch.ones(self.get_base_layer().out_features))}

    def forward(self, states):
        return self.base_layer(states) + sum(self.leaf("by", adapter) for adapter in self.working)


class ShiftModel(Tuner):
    prefix = "acme_shift_"
    tuner_layer_cls = ShiftLayer


register_tuner(ShiftConfig, ShiftModel)
""",
}
SAVE = """
import sys
from transformers import AutoModelForSequenceClassification
{imports}
from peft import get_peft_model
import acme_tuner
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
get_peft_model(model, acme_tuner.ShiftConfig(target_modules=["query"], task_type="SEQ_CLS")).save_pretrained("adapter")
"""


def base(head: str = "sequence_classification", kind: str = "bert") -> Any:
    import transformers

    from peftselect.modeling import AUTO_CLASSES

    return getattr(transformers, AUTO_CLASSES[head]).from_pretrained(tiny_folder(kind, head))


def config(**settings: Any) -> Any:
    from peftselect import BottleneckConfig

    pattern = r".*\.\d+\.(?:attention\.output\.dense|output\.dense)"
    return BottleneckConfig(target_modules=pattern, bottleneck=4, task_type="SEQ_CLS", **settings)


def answer(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(10, 18)[None]).logits


def randomise(model: Any) -> None:
    import torch

    torch.manual_seed(3)
    for name, tensor in model.named_parameters():
        if "psel_" in name and tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=0.3)


def test_every_module_of_the_folder_is_imported_with_peft() -> None:
    import peft  # noqa: F401

    from peftselect import tuners

    files = {path.stem for path in Path(str(tuners.__file__)).parent.glob("*.py")} - {"__init__", "registry"}
    assert files
    assert {f"peftselect.tuners.{name}" for name in files} <= set(sys.modules)


@pytest.mark.parametrize("first", ["base", "mam"])
def test_any_module_of_the_folder_may_be_the_first_to_import_peft(first: str) -> None:
    code = (
        f"import peftselect.tuners.{first}\nfrom peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as known\n"
        "from peftselect.tuners import registry\nassert not registry._postponed, registry._postponed\n"
        "print(len([name for name in known if name.startswith('PSEL_')]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3


def test_each_registered_tuner_keeps_to_the_layout_that_peft_and_transformers_need() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    ours = [kind for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind.startswith("PSEL_")]
    assert ours
    for kind in ours:
        model = PEFT_TYPE_TO_TUNER_MAPPING[kind]
        prefix = PEFT_TYPE_TO_PREFIX_MAPPING[kind]
        assert prefix == kind.lower() + "_" == kind.value.lower() + "_"
        shared = (*getattr(model, "shared_modules", ()), *getattr(model, "shared_parameters", ()))
        names = (*model.tuner_layer_cls.adapter_layer_names, *shared)
        assert all(name.startswith(prefix) for name in names), names


def test_a_version_of_peft_without_what_we_lean_on_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from peftselect import BottleneckConfig
    from peftselect.tuners.bottleneck import BottleneckModel

    monkeypatch.setitem(registry.INTERNALS, "BaseTuner", ("_gone",))
    with pytest.raises(UnsupportedError, match=r"lacks BaseTuner\._gone") as caught:
        registry.register_tuner(BottleneckConfig, BottleneckModel)
    assert caught.value.hint == "install peft>=0.21,<0.22"


def test_a_tuner_with_a_wrong_prefix_or_a_taken_name_is_refused() -> None:
    from peftselect import BottleneckConfig
    from peftselect.tuners.bottleneck import BottleneckModel

    with pytest.raises(PluginError, match="the prefix is 'other_'"):
        registry.register_tuner(BottleneckConfig, type("Other", (BottleneckModel,), {"prefix": "other_"}))
    with pytest.raises(PluginError, match=re.escape("'PSEL_BOTTLENECK' is already registered")):
        registry.register_tuner(type("Taken", (BottleneckConfig,), {}), BottleneckModel)


@pytest.mark.parametrize(
    "order",
    [
        "import peftselect, peft",
        "import peft, peftselect",
        "import peftselect, importlib.util; importlib.util.find_spec('peft')",
    ],
)
def test_plain_peft_loads_our_adapters_whichever_is_imported_first(order: str, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = get_peft_model(base(), config())
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    code = (
        f"{order}\nimport sys, torch, transformers\nfrom peft import AutoPeftModelForSequenceClassification as Auto\n"
        "model = Auto.from_pretrained('adapter', num_labels=3).eval()\n"
        "print(model(input_ids=torch.arange(10, 18)[None]).logits.tolist())"
    )
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = str(tiny_folder("bert", "sequence_classification"))
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(saved))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])[0] == pytest.approx(answer(model)[0].tolist(), abs=1e-5)


def test_two_adapters_live_side_by_side_and_each_is_saved_alone(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel, get_peft_model

    model = get_peft_model(base(), config())
    before = answer(model)
    model.add_adapter("second", config())
    model.set_adapter("second")
    randomise(model)
    second = answer(model)
    assert not torch.allclose(before, second)
    model.set_adapter("default")
    assert torch.equal(answer(model), before)
    with model.disable_adapter():
        assert torch.equal(answer(model), before)
    model.save_pretrained(tmp_path, selected_adapters=["second"])
    again = PeftModel.from_pretrained(base(), tmp_path / "second", adapter_name="renamed", low_cpu_mem_usage=True)
    assert torch.allclose(answer(again), second, atol=1e-6)
    model.delete_adapter("second")
    assert torch.equal(answer(model), before)


def test_transformers_own_adapter_methods_take_our_tuners(tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model

    trained = get_peft_model(base(), config())
    randomise(trained)
    trained.save_pretrained(tmp_path)
    plain = base()
    plain.add_adapter(config(), "other")
    plain.load_adapter(str(tmp_path), "default")
    plain.set_adapter("default")
    assert torch.allclose(answer(plain), answer(trained), atol=1e-6)


def test_load_puts_an_adapter_on_the_base_that_it_names(tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model

    model = get_peft_model(base(), config())
    randomise(model)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["saved_by"] == "peftselect"
    saved["base_model_name_or_path"] = str(tiny_folder("bert", "sequence_classification"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(saved))
    assert torch.allclose(answer(peftselect.load(tmp_path)), answer(model), atol=1e-6)
    assert torch.allclose(answer(peftselect.load(tmp_path, base())), answer(model), atol=1e-6)


def test_load_says_which_plugin_is_missing(tmp_path: Path) -> None:
    for name, text in THIRD_PARTY.items():
        (tmp_path / name).write_text(text)
    folder = tiny_folder("bert", "sequence_classification")
    save = SAVE.format(imports="import acme_plugin")
    done = subprocess.run(
        [sys.executable, "-c", save, str(folder)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    load = "import acme_plugin, peftselect; print(peftselect.load('adapter').peft_config['default'].peft_type.value)"
    there = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert there.stdout.endswith("ACME_SHIFT\n"), there.stderr
    with pytest.raises(InputError) as caught:
        peftselect.load(tmp_path / "adapter", base())
    assert "the adapter was saved by peftselect-acme, whose tuner 'ACME_SHIFT' is not in peft 0.21" in str(caught.value)
    assert caught.value.hint == "pip install peftselect-acme"


def test_load_refuses_what_is_no_adapter_and_what_names_no_base(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no adapter here \(adapter_config.json: FileNotFoundError\)"):
        peftselect.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "NEVER_HEARD_OF"}')
    with pytest.raises(InputError, match="needs the tuner 'NEVER_HEARD_OF', which is not in peft") as caught:
        peftselect.load(tmp_path)
    assert caught.value.hint == "install the plugin that it was saved with"
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="does not say which model it belongs to"):
        peftselect.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "/nowhere/at/all"}'
    )
    with pytest.raises(InputError, match="its base model /nowhere/at/all could not be loaded"):
        peftselect.load(tmp_path)


@pytest.mark.parametrize("own", [True, False])
def test_the_code_that_a_run_prints_loads_the_adapter_in_a_new_process(own: bool, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from peft import LoraConfig, get_peft_model

    from peftselect.training.saving import loading_code

    folder = tiny_folder("bert", "sequence_classification")
    adapter = config() if own else LoraConfig(target_modules=["query"], task_type="SEQ_CLS")
    get_peft_model(base(), adapter).save_pretrained(tmp_path / "adapter")
    shape = SimpleNamespace(
        architecture="encoder", audio=None, head=SimpleNamespace(kind="sequence_classification", modules=())
    )
    problem = SimpleNamespace(shape=shape, model=SimpleNamespace(load_from=str(folder)))
    recipe = SimpleNamespace(precision="fp32", quantization=None)
    candidate = SimpleNamespace(method=SimpleNamespace(saves_adapter=True), recipe=recipe)
    code = loading_code(problem, candidate, ("a", "b", "c"), tmp_path / "adapter", own_tuner=own)  # type: ignore[arg-type]
    code = "\n".join(line for line in code.splitlines() if not line.startswith("tokenizer ="))  # tiny models have none
    code += "\nimport sys; print(type(model).__name__, 'peftselect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["PeftModelForSequenceClassification", str(own)], done.stderr
