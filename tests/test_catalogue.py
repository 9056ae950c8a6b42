"""Every name of the thesis leads somewhere: to what can be run, or to why it cannot and what is near."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from peftselect import hookimpl
from peftselect.errors import PluginError, UnsupportedError
from peftselect.plugin_manager import PluginHost, host, plain
from peftselect.technique import read_techniques

#: the seventy techniques which the thesis names, each with the names that it goes by there
THESIS: tuple[tuple[str, ...], ...] = (
    ("LoRA",), ("AdaLoRA",), ("(IA)³", "IA3"), ("Prompt tuning",), ("P-tuning",), ("Prefix tuning",),
    ("QLoRA", "NF4", "double quantization", "paged optimizers"), ("LoRA-FA",), ("LoftQ",), ("QA-LoRA",), ("BitFit",),
    ("Layer-wise fine-tuning",), ("Downstream tuning", "Baseline"), ("Full fine-tuning", "FT", "Full Tuning"),
    ("Random",), ("MagPruning",), ("Sparse fine-tuning",), ("SAM",), ("Child-Tuning_D",), ("PEMTL",), ("Weighted-sum",),
    ("Adapter", "Adapter^S", "Houlsby"), ("Parallel adapter", "PA"), ("MAM", "MHM"), ("Tiny-attention adapter",),
    ("Compacter",), ("AdapterDrop",), ("AdapterFusion",), ("SparseAdapter",), ("SPLoRA",), ("LoRAPrune", "LoRAPruning"),
    ("ProPETL_Adapter", "ProPELT_Adapter"), ("ProPETL_LoRA", "ProPELT_LoRA"), ("ProPETL_Prefix", "ProPELT_Prefix"),
    ("BI-Adapter",), ("PEQA",), ("LQ-LoRA",), ("BitDelta",), ("Side-Tuning",), ("LST", "Ladder side-tuning"),
    ("Res-Tuning",), ("Res-Tuning-Bypass",), ("MEFT",), ("HyperTuning",), ("PEFT Plug-in",), ("MeZO",), ("MixOut",),
    ("DiffPruning",), ("ChildPruning",), ("HyperNetworks",), ("EPL",), ("IDPT",), ("Fixed-UPL",), ("Dynamic-UPL",),
    ("ConvAdapter",), ("AdapterBias",), ("Embedding prompt",), ("LM-BFF",),
    ("Pruning", "Unstructured pruning", "Structured pruning"),
    ("Knowledge distillation", "White-box distillation", "Black-box distillation"),
    ("Quantization", "PTQ", "QAT"), ("Low-rank factorization",), ("Zero-shot prompting", "wo-FT"),
    ("In-context learning", "ICL"), ("Chain of thought", "CoT", "Self-consistency", "Tree of thoughts", "ToT"),
    ("Transfer learning", "Instruction tuning", "Alignment tuning", "RLHF"),
    ("Data parallelism", "Tensor parallelism", "Pipeline parallelism", "Model parallelism", "3D parallelism"),
    ("Additive", "Selective", "Reparameterized", "Hybrid", "Soft prompts"),
    ("Reversible networks", "RevNet"), ("Chinchilla", "MoEfication", "Knowledge neurons", "Attention in reasoning"),
)  # fmt: skip


def known() -> dict[str, list[str]]:
    """Every name as it is compared, with the entries it leads to."""
    found: dict[str, list[str]] = {}
    for entry in host().entries().values():
        for name in {plain(name) for name in (entry.name, *entry.aliases)}:
            found.setdefault(name, []).append(entry.name)
    return found


def test_all_that_the_thesis_names_is_in_the_catalogue() -> None:
    assert len(THESIS) == 70
    assert [name for names in THESIS for name in names if plain(name) not in known()] == []


def test_no_name_leads_to_two_entries() -> None:
    assert {name: entries for name, entries in known().items() if len(entries) > 1} == {}


def test_each_technique_says_why_it_cannot_be_run_and_where_it_is_from() -> None:
    found = host().techniques()
    assert len(found) > 10
    for name, item in found.items():
        assert item.because, name
        assert item.instead, name
        assert set(item.instead) <= {*host().methods(), *host().baselines(), *host().stages()}, name
        assert item.thesis or item.references, name
        with pytest.raises(UnsupportedError) as refused:
            host().method(name)
        assert refused.value.message == f"{name} cannot be run: {item.because}"


def test_a_technique_gives_way_to_a_plugin_of_one_of_its_names() -> None:
    ours = PluginHost.load(external=False)
    assert "revnet" in ours.techniques()

    class Lora(type(ours.method("lora"))):  # type: ignore[misc]
        aliases = ("RevNet",)

    plugin = ModuleType("own")
    plugin.register_methods = hookimpl(lambda: (type("Own", (Lora,), {"name": "own"}),))  # type: ignore[attr-defined]
    ours._methods = None
    ours.manager.register(plugin, name="own")
    assert "revnet" not in ours.techniques()
    assert ours.method("revnet").name == "own"


@pytest.mark.parametrize("written", ["(IA)³", "IA3", "(ia)^3", "ia-3"])
def test_a_name_is_found_however_it_is_written(written: str) -> None:
    assert host().method(written).name == "ia3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[technique]]\nname = "x"', "own.toml, technique 1 lacks title, family, summary, because"),
        (
            '[[technique]]\nname="x"\ntitle="X"\nfamily="f"\nsummary="s"\nbecause="b"\nyear=1',
            "own.toml, technique 1: Technique.__init__() got an unexpected keyword argument 'year'",
        ),
        (
            2 * '[[technique]]\nname="x"\ntitle="X"\nfamily="f"\nsummary="s"\nbecause="b"\n',
            "technique 'x' is registered twice",
        ),
    ],
)
def test_a_file_that_breaks_the_form_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(PluginError) as refused:
        read_techniques([file])
    assert refused.value.message == message
