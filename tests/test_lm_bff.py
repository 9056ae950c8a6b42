"""LM-BFF: labels as words at a mask, from the prompt to a reloaded model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import peftselect
from peftselect import TaskContext
from peftselect.errors import DataError, InputError
from peftselect.memory.closed_form import estimate_memory
from peftselect.memory.setting import settle
from peftselect.memory.trace import TraceRequest
from peftselect.memory.worker import trace_memory
from peftselect.plugin_manager import host
from peftselect.problem import Hardware
from peftselect.serving.loaded import load
from peftselect.serving.saved import read_saved
from peftselect.tasks._prompted import FillMask, encode, word_ids, words_of
from tests.samples import SAMPLES
from tests.tiny import tokenizer

TASK = host().task("classification")


def context(**changes: Any) -> TaskContext:
    made = TaskContext(
        tokenizer(), "encoder", "masked_lm", 24, labels=("negative", "positive"), label_words=("bad", "good")
    )
    return replace(made, **changes)


def written(rows: list[dict[str, Any]], asked: TaskContext) -> list[str]:
    encoded = encode(TASK, rows, asked)
    return [asked.tokenizer.decode(ids) for ids in encoded["input_ids"]]


def test_a_text_stands_in_a_prompt_with_a_mask() -> None:
    row = {"text": "the film is great", "label": "positive"}
    assert written([row], context(template="{source} is {mask} .")) == ["the film is great is [MASK] . </s>"]
    assert encode(TASK, [row], context())["labels"] == [1]


def test_long_texts_are_cut_and_the_mask_stays() -> None:
    row = {"text": "film " * 100, "text_pair": "cat " * 100, "label": "negative"}
    text = written([row], context(template="{source} ? {mask} , {second}"))[0]
    assert text.count("[MASK]") == 1
    assert 3 <= text.count("film") <= 12
    assert 3 <= text.count("cat") <= 12


def test_demonstrations_stand_behind_with_their_words() -> None:
    shown = ({"text": "awful dog", "label": "negative"}, {"text": "great cat", "label": "positive"})
    asked = context(demonstrations=shown, template="{source} is {mask} .", max_length=40)
    row = {"text": "the film [MASK] is bad", "label": "negative"}
    wanted = "the film is bad is [MASK] . awful dog is bad . great cat is good . </s>"
    assert written([row], asked) == [wanted]


def test_words_are_the_papers_or_the_labels() -> None:
    known = {"No", "Yes", "Maybe", "great", "okay", "terrible"}
    knows = tokenizer()
    knows.add_tokens(sorted(known))
    labels = {
        ("contradiction", "entailment", "neutral"): ("No", "Yes", "Maybe"),
        ("negative", "neutral", "positive"): ("terrible", "okay", "great"),
        ("red_one", "2"): ("red", "2"),
    }
    for names, words in labels.items():
        assert words_of(context(tokenizer=knows, labels=names, label_words=())) == words
    assert words_of(context(label_words=())) == ("negative", "positive"), "a model that lacks the paper's words"
    ids = word_ids(context())
    assert tokenizer().convert_ids_to_tokens(ids) == ["bad", "good"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_words": ("bad",)}, "label_words has 1 words for 2 labels"),
        ({"label_words": ("bad", "bad")}, "the words of labels 'negative' and 'positive' begin with one token"),
        (
            {"label_words": ("bad", "splendid")},
            "the word 'splendid' of label 'positive' is not in the model's vocabulary",
        ),
    ],
)
def test_words_that_cannot_serve_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        word_ids(context(**changes))
    assert refused.value.message == message
    assert refused.value.hint == "write --set label_words=WORD,WORD in the order of the labels: negative, positive"


def test_prompts_that_cannot_serve_are_refused() -> None:
    row = {"text": "cat", "label": "positive"}
    with pytest.raises(InputError, match=r"--template lacks \{mask\}"):
        encode(TASK, [row], context(template="{source} it was"))
    with pytest.raises(InputError, match=r"--template lacks \{second\}"):
        encode(TASK, [{**row, "text_pair": "dog"}], context(template="{source} it was {mask}"))
    with pytest.raises(DataError, match="the prompt's mask does not fit into the input"):
        encode(TASK, [row], context(template="{source} a b c d e f g {mask}", max_length=6))


def test_the_word_at_the_mask_is_read_whatever_loads_the_model(tiny_models: Callable[[str], Path]) -> None:
    """A model that speaks at every position gives the logits of one that speaks at the mask alone."""
    from peftselect.processors import speak_at_mask

    asked = context()
    rows = [{"text": "the film is great", "label": "positive"}, {"text": "bad", "label": "negative"}]
    pad = TASK.collator(asked)
    encoded = encode(TASK, rows, asked)
    batch = pad([dict(encoded[index]) for index in range(2)])
    model = transformers.AutoModelForMaskedLM.from_pretrained(tiny_models("bert")).eval()
    objective = FillMask(asked)
    everywhere = objective.predict(model, batch)
    at = [ids.index(asked.tokenizer.mask_token_id) for ids in encoded["input_ids"]]
    whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.stack([whole[row, position, word_ids(asked)] for row, position in enumerate(at)])
    assert torch.allclose(everywhere, expected)
    speak_at_mask(model, asked.tokenizer.mask_token_id)
    assert model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.shape[1] == 1
    assert torch.allclose(objective.predict(model, batch), expected, atol=1e-6)
    loss = torch.nn.functional.cross_entropy(expected, torch.tensor([1, 0]))
    assert torch.allclose(objective.loss(model, batch), loss, atol=1e-6)


def write(file: Path, numbers: range) -> Path:
    file.write_text("".join(json.dumps(SAMPLES["classification"](number)) + "\n" for number in numbers))
    return file


@pytest.mark.parametrize("shown", [0, 1])
def test_a_run_is_scored_saved_reloaded_and_predicts(
    tiny_models: Callable[[str], Path], tmp_path: Path, shown: int
) -> None:
    order: dict[str, Any] = {
        "train": write(tmp_path / "train.jsonl", range(80)),
        "evaluation": write(tmp_path / "eval.jsonl", range(80, 90)),
        "test": write(tmp_path / "test.jsonl", range(90, 110)), "max_length": 48, "method": "lm_bff", "device": "cpu",
        "output": tmp_path / "out", "template": "{source} is {mask} .",
        "settings": {
            "label_words": "awful,great", "demonstrations": shown, "num_train_epochs": 6, "learning_rate": 3e-3,
        },
    }  # fmt: skip
    result = peftselect.run("classification", str(tiny_models("bert")), **order)
    record = result.record
    assert record.measured["trainable_parameters"] == record.measured["total_parameters"]
    assert record.measured["trainable_parameters"] == record.predicted["trainable_parameters"]
    losses = [item["loss"] for item in json.loads((result.output / "metrics.json").read_text())["history"]["training"]]
    assert losses[-1] < losses[0]
    assert shown or record.scores["accuracy"].value > record.baseline["accuracy"].value
    serving = json.loads((result.output / "serving.json").read_text())
    assert serving["head"] == "masked_lm"
    assert serving["label_words"] == ["awful", "great"]
    assert [row["label"] for row in serving["demonstrations"]] == ["negative", "positive"] * shown
    lines = (result.output / "predictions.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    loaded = load(read_saved(result.output), device="cpu")
    assert loaded.predict([{"text": item["input"][0]} for item in kept]) == [item["prediction"] for item in kept]
    own: dict[str, Any] = {}
    exec(result.snippet, own)
    assert type(own["model"]).__name__ == "BertForMaskedLM"


def test_other_methods_keep_the_tasks_own_head(tiny_models: Callable[[str], Path]) -> None:
    plain = peftselect.recommend("classification", str(tiny_models("bert")), method="lora")
    assert plain.problem.shape.head.kind == "sequence_classification"
    assert plain.recommended is not None
    answer = peftselect.recommend("classification", str(tiny_models("bert")))
    assert "lm_bff" in {item.method for item in answer.excluded}
    refused = peftselect.recommend("ner", str(tiny_models("bert")), method="lm_bff")
    assert refused.excluded[0].constraint == "head"


def test_an_encoder_without_its_masked_head_is_refused(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models("bert"), tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(InputError) as refused:
        peftselect.recommend("classification", str(folder), method="lm_bff")
    assert refused.value.message == "plain comes without the head of a masked language model (it is a BertModel)"


def test_its_price_is_near_the_trace() -> None:
    found = settle("roberta-base", "lm_bff", Hardware(), max_length=256, batch_size=8)
    assert found.shape.head.kind == "masked_lm"
    config = {**found.base.config, "num_hidden_layers": 4}
    shape = host().method("lm_bff")
    from peftselect.shapes import read_shape

    cut = read_shape(config, "masked_lm")
    traced = trace_memory(TraceRequest(config, "masked_lm", 2, False, "lm_bff", found.values, found.recipe)).breakdown
    parts = estimate_memory(cut, shape, found.values, found.recipe).breakdown
    said = sum(size for part, size in parts.items() if part not in ("fragmentation", "workspace", "cuda_context"))
    assert said == pytest.approx(sum(traced.values()), rel=0.1)
