"""Stages before and after a method: how they are written, what they do to the model, and what a run leaves of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import peftselect
from peftselect.errors import InputError, UnknownNameError, UnsupportedError
from peftselect.example import example_data, example_model
from peftselect.modeling import AUTO_CLASSES
from peftselect.plugin_manager import host
from peftselect.serving.loaded import load
from peftselect.serving.saved import read_saved
from peftselect.stage import StageContext
from peftselect.testing.models import tiny_folder, tiny_shape
from peftselect.training.stage_plan import read_stages
from peftselect.training.stages import load_saved, refuse_untrained

QUICK: dict[str, Any] = {"limit": 24, "max_steps": 4}
KINDS = {
    "t5": "seq2seq_lm",
    "bart": "seq2seq_lm",
    "bert": "sequence_classification",
    "gpt2": "causal_lm",
    "llama": "causal_lm",
}


def changed(stage: str, kind: str, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """(the base, the changed model, what the stage reported) of a tiny model."""
    head = KINDS[kind]
    loader = getattr(transformers, AUTO_CLASSES[head])
    base, model = (loader.from_pretrained(tiny_folder(kind, head)) for _ in range(2))
    shape = tiny_shape(kind, head)
    assert shape is not None
    context = StageContext(shape, 0, folder, loader.from_pretrained, partial(load_saved, head), lambda *_: [])
    (item,) = read_stages([], [stage])
    return base, item.stage.change(model, item.values, context), context.report


def test_there_are_stages() -> None:
    assert {"prune", "quantize", "factorize", "distill"} <= set(host().stages())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["layer", "all"])
def test_pruning_sets_the_smallest_weights_to_zero(kind: str, scope: str, tmp_path: Path) -> None:
    base, model, report = changed(f"prune:sparsity=0.25,scope={scope}", kind, tmp_path)
    assert report["zero_weights"] == pytest.approx(0.25 * report["prunable_weights"], rel=0.01)
    before, after = dict(base.named_parameters()), dict(model.named_parameters())
    assert set(after) == set(before)
    for name, new in after.items():
        old = before[name]
        gone = (new == 0) & (old != 0)
        assert torch.equal(new[~gone], old[~gone]), name
        if scope == "layer" and gone.any():
            assert old[gone].abs().max() <= old[~gone].abs().min(), name


@pytest.mark.parametrize("kind", KINDS)
def test_structured_pruning_leaves_a_smaller_model_that_plain_transformers_loads(kind: str, tmp_path: Path) -> None:
    base, model, report = changed("prune:sparsity=0.5,structured=true", kind, tmp_path / "scratch")
    assert report["parameters_after"] < report["parameters_before"] == sum(item.numel() for item in base.parameters())
    model.save_pretrained(tmp_path / "small")
    again = type(model).from_pretrained(tmp_path / "small").eval()
    inputs = {"input_ids": torch.arange(5, 13)[None]}
    if KINDS[kind] == "seq2seq_lm":
        inputs["decoder_input_ids"] = torch.arange(3, 7)[None]
    with torch.no_grad():
        assert torch.allclose(again(**inputs).logits, model.eval()(**inputs).logits, atol=1e-6)


def test_channels_without_weight_are_the_ones_that_are_cut(tmp_path: Path) -> None:
    folder, shape = tiny_folder("llama", "causal_lm"), tiny_shape("llama", "causal_lm")
    assert shape is not None
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    width = shape.intermediate_size
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.data[:, ::2] = 0
    inputs = torch.arange(5, 13)[None]
    with torch.no_grad():
        expected = model(inputs).logits
    stage = host().stage("prune")
    context = StageContext(shape, 0, tmp_path, str, str, lambda *_: [])
    stage.change(model, {"sparsity": 0.5, "structured": True, "scope": "layer"}, context)
    assert model.model.layers[0].mlp.up_proj.weight.shape[0] == model.config.intermediate_size == width // 2
    with torch.no_grad():
        assert torch.allclose(model(inputs).logits, expected, atol=1e-5)


def test_factors_of_a_share_of_the_rank_are_the_nearest_of_that_rank(tmp_path: Path) -> None:
    base, model, report = changed("factorize:keep=0.25", "bert", tmp_path)
    old = base.bert.encoder.layer[0].output.dense.weight.data
    new = model.bert.encoder.layer[0].output.dense.weight.data
    sizes = torch.linalg.svdvals(old)
    rank = round(len(sizes) * 0.25)
    assert int(torch.linalg.matrix_rank(new)) == rank
    assert float((old - new).norm()) == pytest.approx(float(sizes[rank:].norm()), rel=1e-4)
    assert report["weights_as_factors"] < report["weights"]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_is_smaller_and_stays_near(bits: int, tmp_path: Path) -> None:
    base, model, report = changed(f"quantize:bits={bits}", "llama", tmp_path)
    assert report["bytes_after"] < report["bytes_before"]
    inputs = torch.arange(5, 13)[None]
    with torch.no_grad():
        far = float((model(inputs).logits - base.eval()(inputs).logits).norm() / base(inputs).logits.norm())
    assert 0 < far < (0.1 if bits == 8 else 0.5)


def test_soft_targets_vanish_where_the_teacher_is_the_student() -> None:
    from peftselect.plugins.distill import SoftTargets

    def model(seed: int) -> Any:
        torch.manual_seed(seed)
        config = transformers.AutoConfig.from_pretrained(tiny_folder("gpt2", "causal_lm"))
        return transformers.AutoModelForCausalLM.from_config(config).eval()

    student, inputs = model(0), {"input_ids": torch.arange(5, 13)[None], "labels": torch.arange(5, 13)[None]}
    own = float(student(**inputs).loss.detach())
    assert float(SoftTargets(student, 2.0, 1.0).loss(student, inputs).detach()) == pytest.approx(0, abs=1e-6)
    assert float(SoftTargets(model(1), 2.0, 0.0).loss(student, inputs).detach()) == pytest.approx(own, rel=1e-5)
    assert float(SoftTargets(model(1), 2.0, 1.0).loss(student, inputs).detach()) > 1e-4


def test_a_pruned_base_is_kept_beside_its_adapter_and_both_answer_as_in_the_run(tmp_path: Path) -> None:
    done = peftselect.run(
        method="lora", before=["prune:sparsity=0.5,structured=true"], output=tmp_path / "out", **QUICK
    )
    record = done.record
    assert record.candidate["stages"] == [
        {"stage": "prune", "place": "before", "values": {"sparsity": 0.5, "structured": True, "scope": "layer"}}
    ]
    (told,) = record.measured["stages"].values()
    assert told["parameters_after"] < told["parameters_before"]
    assert (tmp_path / "out" / "base" / "config.json").exists()
    saved = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    model = load(read_saved(tmp_path / "out"))
    rows = [{"source": item["input"][0]} for item in saved]
    assert model.predict(rows) == [item["prediction"] for item in saved]


def test_stages_on_both_sides_leave_one_whole_model(tmp_path: Path) -> None:
    stages = {"before": ["prune:sparsity=0.2"], "after": ["quantize:bits=8", "factorize:keep=1"]}
    with pytest.raises(UnsupportedError, match="nothing can be done after quantize"):
        peftselect.run(method="lora", output=tmp_path / "no", **stages, **QUICK)
    done = peftselect.run(method="lora", before=["prune"], after=["quantize:bits=8"], output=tmp_path / "out", **QUICK)
    assert [item["place"] for item in done.record.candidate["stages"]] == ["before", "after"]
    assert "scores_before_stages" in done.record.measured
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["load_in_8bit"]
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| before training | prune:sparsity=0.5,structured=False,scope=layer |" in card


def test_a_teacher_answers_in_place_of_the_data(tmp_path: Path) -> None:
    teacher = f"distill:teacher={example_model()},box=black"
    done = peftselect.run(method="lora", before=[teacher], output=tmp_path / "out", **QUICK)
    (told,) = done.record.measured["stages"].values()
    assert told["rows_answered"] == QUICK["limit"]
    assert 0 < told["answers_that_differ"] <= QUICK["limit"]


def test_a_teacher_with_another_head_is_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bert"
    folder = tiny_folder("bert", "feature_extraction")
    model = transformers.AutoModel.from_pretrained(folder)
    model.save_pretrained(bare)
    assert json.loads((bare / "config.json").read_text())["architectures"] == ["BertModel"]
    with pytest.raises(InputError, match="was never trained for this task: its weights are those of BertModel"):
        refuse_untrained(str(bare), "sequence_classification")


@pytest.mark.parametrize(
    ("before", "after", "error", "message"),
    [
        (["quantize"], [], InputError, "--before quantize: quantize cannot stand there"),
        (["prune:half"], [], InputError, "--before prune:half: 'half' is no setting"),
        (["prune:sparsity=2"], [], InputError, "sparsity='2' is out of range"),
        (["prune:amount=1"], [], UnknownNameError, "unknown setting of prune 'amount'"),
        ([], ["squeeze"], UnknownNameError, "unknown stage 'squeeze'"),
    ],
)
def test_what_cannot_be_read_is_named(before: list[str], after: list[str], error: Any, message: str) -> None:
    with pytest.raises(error) as refused:
        read_stages(before, after)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("method", "stages", "message"),
    [
        ("ptuning", {"after": ["prune"]}, "prune needs a whole model, and P-tuning cannot be merged into its base"),
        ("full", {"before": ["prune"]}, "Full fine-tuning trains the very weights that prune changes"),
        ("qlora", {"before": ["prune"]}, "prune cannot change a base that is held in nf4"),
        ("lora", {"before": ["distill"]}, "distill: it needs a teacher: distill:teacher=MODEL"),
        ("none", {"before": ["prune"]}, "prune cannot stand before none, which trains nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_together_is_refused_before_torch(method: str, stages: Any, message: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        peftselect.plan_run(method=method, **stages)
    assert refused.value.message == message


def test_a_stage_is_no_method() -> None:
    with pytest.raises(UnsupportedError) as refused:
        host().method("pruning")
    assert (refused.value.message, refused.value.hint) == (
        "prune is no method but a stage beside one",
        "run --before prune or run --after prune",
    )


def test_the_plan_shows_its_stages(peftselect) -> None:
    arguments = ("run", "--before", "prune:sparsity=0.5", "--after", "quantize:bits=8", "--method", "lora", "--dry-run")
    shown = " ".join(peftselect(*arguments).stdout.split())
    assert "before it pruning (prune:sparsity=0.5,structured=False,scope=layer)" in shown
    assert "after it quantization (post-training) (quantize:bits=8)" in shown
    document = json.loads(peftselect(*arguments, "--json").stdout)
    assert [item["stage"] for item in document["stages"]] == ["prune", "quantize"]


def test_the_base_model_alone_is_scored_and_nothing_is_trained(tmp_path: Path) -> None:
    done = peftselect.run(method="zero-shot", output=tmp_path / "out", limit=24)
    assert done.record.candidate["baseline"]
    assert done.record.candidate["method"] == "none"
    assert done.record.scores == done.record.baseline
    assert done.record.measured["trainable_parameters"] == done.record.measured["adapter_bytes"] == 0
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == [
        "README.md", "advice.json", "metrics.json", "predictions.jsonl", "run.json",
    ]  # fmt: skip


def test_solved_examples_stand_before_the_question(tmp_path: Path) -> None:
    done = peftselect.run(method="icl", settings={"shots": 2}, output=tmp_path / "out", limit=24)
    assert done.record.measured["examples"] == 2
    told = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert any(item["base"] != item["prediction"] for item in told)


def test_examples_that_do_not_fit_the_window_are_left_out() -> None:
    from types import SimpleNamespace

    from peftselect.task import TaskContext
    from peftselect.training.baseline import with_examples

    tokenizer = transformers.AutoTokenizer.from_pretrained(example_model())
    task = host().task("summarization")
    train = [json.loads(line) for line in example_data()["train"].read_text().splitlines()][:20]
    rows = [{"source": row["dialogue"], "target": "a"} for row in train]
    context = TaskContext(tokenizer, "decoder", "causal_lm", 100, 20)
    shape = SimpleNamespace(max_positions=100 + 20 + 2 * max(len(tokenizer(r["source"])["input_ids"]) for r in rows))
    problem = SimpleNamespace(task=task, shape=shape)
    plan = SimpleNamespace(problem=problem, splits=SimpleNamespace(train=rows), seed=0)
    candidate = SimpleNamespace(method=host().method("icl"))
    session: Any = SimpleNamespace(plan=plan, context=context, here=SimpleNamespace(candidate=candidate))
    made, number = with_examples(session, 10)
    assert 0 < number < 10
    assert made.template is not None
    assert made.template.endswith("summarize: {source}")
    assert made.template.count("{source}") == 1
    assert made.max_length + 20 <= shape.max_positions


def test_only_language_models_are_given_examples() -> None:
    with pytest.raises(UnsupportedError, match=r"in_context_learning cannot be run: .*head"):
        peftselect.plan_run("classification", "roberta-base", train=example_data()["train"], method="icl", limit=30,
                            columns={"text": "dialogue", "label": "summary"})  # fmt: skip


def small_and_large(kind: str, folder: Path, width: int, layers: int) -> tuple[Path, Any, Any]:
    """(LoRA adapter of a tiny model, that model with it, a model of another size)."""
    from peft import LoraConfig, get_peft_model

    small_folder = tiny_folder(kind, KINDS[kind])
    loader = getattr(transformers, AUTO_CLASSES[KINDS[kind]])
    targets = ["c_attn"] if kind == "gpt2" else ["q_proj", "o_proj"]
    config = LoraConfig(r=2, target_modules=targets, fan_in_fan_out=kind == "gpt2", task_type="CAUSAL_LM")
    tuned = get_peft_model(loader.from_pretrained(small_folder), config)
    torch.manual_seed(3)
    for name, item in tuned.named_parameters():
        if "lora_B" in name:
            item.data.normal_()
    tuned.save_pretrained(folder / "adapter")
    large = transformers.AutoConfig.from_pretrained(small_folder)
    sizes = (
        {"n_embd": width, "n_layer": layers} if kind == "gpt2" else {"hidden_size": width, "num_hidden_layers": layers}
    )
    large.update({**sizes, **({} if kind == "gpt2" else {"head_dim": width // large.num_attention_heads})})
    if (width, layers) == (tuned.config.hidden_size, tuned.config.num_hidden_layers):
        return folder / "adapter", tuned.eval(), loader.from_pretrained(small_folder).eval()
    return folder / "adapter", tuned.eval(), loader.from_config(large).eval()


def plugged(adapter: Path, kind: str, model: Any, scratch: Path) -> tuple[Any, dict[str, Any]]:
    """The model with the updates, and what was reported."""
    shape = tiny_shape(kind, KINDS[kind])
    assert shape is not None
    loader = getattr(transformers, AUTO_CLASSES[KINDS[kind]])
    context = StageContext(shape, 0, scratch, loader.from_pretrained, loader.from_pretrained, lambda *_: [])
    return host().stage("plug_in").change(model, {"adapter": str(adapter), "scale": 1.0}, context), context.report


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_updates_carried_to_the_same_model_are_its_own(kind: str, tmp_path: Path) -> None:
    shape = tiny_shape(kind, "causal_lm")
    assert shape is not None
    adapter, tuned, same = small_and_large(kind, tmp_path, shape.hidden_size, shape.num_layers)
    model, report = plugged(adapter, kind, same, tmp_path)
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, tuned(ids).logits, atol=1e-3)
    assert report["layers_changed"] == shape.num_layers * (1 if kind == "gpt2" else 2)


def test_a_larger_model_takes_the_updates_of_the_same_depth(tmp_path: Path) -> None:
    adapter, _, large = small_and_large("gpt2", tmp_path, 64, 4)
    before = {name: item.clone() for name, item in large.named_parameters()}
    model, report = plugged(adapter, "gpt2", large, tmp_path)
    assert (report["layers_changed"], report["large_width"]) == (4, 64)
    apart = {name: item - before[name] for name, item in model.named_parameters()}
    changes = {name: item for name, item in apart.items() if item.any()}
    assert sorted(changes) == [f"transformer.h.{number}.attn.c_attn.weight" for number in range(4)]
    moved = [changes[f"transformer.h.{number}.attn.c_attn.weight"] for number in range(4)]
    assert torch.allclose(moved[0], moved[1], atol=1e-5)
    assert not torch.allclose(moved[1], moved[2], atol=1e-2)
    sizes = torch.linalg.svdvals(moved[0].detach())
    assert sizes[2] < 1e-4 * sizes[0]  # of the small update's rank


def test_only_lora_is_carried_over(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(UnsupportedError, match="is an adapter of IA3, not of LoRA"):
        peftselect.plan_run(method="none", after=[f"plug_in:adapter={tmp_path}"])
    with pytest.raises(InputError, match="holds no adapter"):
        peftselect.plan_run(method="none", after=[f"plug_in:adapter={tmp_path / 'nowhere'}"])


def test_changes_become_their_signs_times_their_mean(tmp_path: Path) -> None:
    folder = tiny_folder("llama", "causal_lm")
    base, model = (transformers.AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    shape = tiny_shape("llama", "causal_lm")
    assert shape is not None
    moved = model.model.layers[0].mlp.up_proj
    torch.manual_seed(0)
    moved.weight.data += torch.randn_like(moved.weight) * 0.1
    expected = (moved.weight - base.model.layers[0].mlp.up_proj.weight).detach()
    load = transformers.AutoModelForCausalLM.from_pretrained
    context = StageContext(shape, 0, tmp_path, load, load, lambda *_: [], str(folder))
    host().stage("bitdelta").change(model, {}, context)
    delta = (moved.weight - base.model.layers[0].mlp.up_proj.weight).detach()
    assert torch.equal(delta.sign(), expected.sign())
    assert torch.allclose(delta.abs(), expected.abs().mean().expand_as(delta), atol=1e-6)
    still = model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(still, base.model.layers[1].mlp.up_proj.weight)
    assert context.report["delta_bytes"] < context.report["weights"]


def test_a_fully_tuned_model_is_kept_at_one_bit_a_change(tmp_path: Path) -> None:
    done = peftselect.run(method="full", after=["bitdelta"], output=tmp_path / "out", **QUICK)
    assert done.record.measured["stages"]["after bitdelta"]["matrices"] > 10
    assert set(done.record.scores) == set(done.record.measured["scores_before_stages"])
    with pytest.raises(UnsupportedError, match="bitdelta: none changes nothing"):
        peftselect.plan_run(method="none", after=["bitdelta"])
