"""One contract for every registered task: encode, collate, run a tiny model, decode, score."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

from peftselect import Column, Task, TaskContext, hookimpl
from peftselect.data import read_rows
from peftselect.errors import DataError
from peftselect.metrics import METRICS
from peftselect.plugin_manager import PluginHost, host
from peftselect.shapes import read_shape
from peftselect.vocabulary import task_family
from tests.conftest import data_set
from tests.samples import SAMPLES
from tests.tiny import config, feature_extractor, tokenizer

TASKS = sorted(host().tasks().values(), key=lambda task: task.name)
TINY = {"encoder": "bert", "decoder": "llama", "encoder-decoder": "t5"}
HEARING = {"encoder": "wav2vec2", "encoder-decoder": "whisper"}
QUESTIONS = [(task, architecture) for task in TASKS if not task.elsewhere for architecture in sorted(task.heads)]
IDS = [f"{task.name}-{architecture}" for task, architecture in QUESTIONS]


@cache
def _sampled(task: str) -> list[dict[str, Any]]:
    file = Path(mkdtemp()) / "rows.jsonl"
    file.write_text("".join(json.dumps(SAMPLES[task](number)) + "\n" for number in (1, 2)))
    return read_rows(file, host().task(task))


def rows_of(task: Task) -> list[dict[str, Any]]:
    """Two rows of the task, as the reader gives them."""
    return deepcopy(_sampled(task.name))


def context_of(task: Task, architecture: str, rows: list[dict[str, Any]], prepended: int = 0) -> TaskContext:
    hears = task.modality == "speech"
    return TaskContext(
        tokenizer(), architecture, task.heads[architecture], 2 if hears else 48, 16, task.label_names(rows), prepended,
        feature_extractor=feature_extractor(HEARING[architecture]) if hears else None,
    )  # fmt: skip


def model_of(task: Task, architecture: str, labels: int) -> Any:
    import transformers

    from peftselect.modeling import AUTO_CLASSES

    head = task.heads[architecture]
    made = config((HEARING if task.modality == "speech" else TINY)[architecture])
    if head == "ctc":
        made.vocab_size = labels
    made.problem_type = task.problem_type
    made.num_labels = 2 if head == "question_answering" else max(labels, 1)
    return getattr(transformers, AUTO_CLASSES[head]).from_config(made)


def test_there_are_tasks() -> None:
    assert len(TASKS) >= 14


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_says_what_it_is(task: Task) -> None:
    assert task.title and task.__doc__ and task.columns and task.default_models
    assert task.elsewhere or set(task.metrics) <= set(METRICS)
    assert task.family == task_family(task.name)
    names = [task.name, *task.aliases]
    assert len(set(names)) == len(names)
    for name in names:
        assert host().task(name) is task
    for name in task.default_models:
        from peftselect.base_models import resolve_base_model

        shape = read_shape(resolve_base_model(name).config)
        assert shape.architecture in task.heads, f"{name} cannot serve {task.name}"


@pytest.mark.parametrize(("task", "architecture"), QUESTIONS, ids=IDS)
def test_rows_become_batches_that_a_model_takes(task: Task, architecture: str) -> None:
    import torch

    rows = rows_of(task)
    context = context_of(task, architecture, rows)
    encoded = task.encode_train(rows, context)
    model = model_of(task, architecture, len(context.labels))
    keys = {"audio", "input_ids", "attention_mask", "token_type_ids", "labels", "start_positions", "end_positions"}
    batch = task.collator(context, model)(
        [{k: v for k, v in row.items() if k in keys or k.endswith("_ids")} for row in encoded]
    )
    batch.pop("token_type_ids", None)
    objective = task.objective(context)
    own = objective is not None and objective.has_loss
    assert torch.isfinite(objective.loss(model, dict(batch)) if own else model(**batch).loss)


@pytest.mark.parametrize(("task", "architecture"), QUESTIONS, ids=IDS)
def test_a_perfect_prediction_scores_best(task: Task, architecture: str) -> None:
    if task.name == "slot_filling" and architecture == "encoder-decoder":
        pytest.skip("a tokenizer of words cannot spell the marks of slots; tests/test_speech.py reads them")
    rows = rows_of(task)
    context = context_of(task, architecture, rows, prepended=3 if task.name in ("ner", "qa") else 0)
    encoded = task.encode_eval(rows, context)
    decoded = task.decode(perfect(task, context, rows, encoded), rows, encoded, context)
    scores = task.score(decoded, rows)
    assert set(scores) == set(task.metrics)
    assert scores[task.metric] == pytest.approx(1.0 if task.higher_is_better else 0.0)


def perfect(task: Task, context: TaskContext, rows: list[dict[str, Any]], encoded: Any) -> Any:
    """What a model that knows the answers would give the Trainer."""
    if context.head == "feature_extraction":
        return np.eye(len(rows))[[*range(len(rows)), *range(len(rows))]]
    if task.name == "multiple_choice" and context.head == "causal_lm":
        return np.array([float(at == row["label"]) for row in rows for at in range(len(row["choices"]))])
    if task.generates(context.head):
        answers = [context.tokenizer(task.target_text(row), add_special_tokens=False)["input_ids"] for row in rows]
        prompts = encoded["input_ids"] if context.architecture == "decoder" else [[] for _ in rows]
        longest = max(map(len, prompts))
        whole = [[0] * (longest - len(p)) + list(p) + a + [1] for p, a in zip(prompts, answers, strict=True)]
        width = max(map(len, whole))
        return np.array([ids + [-100] * (width - len(ids)) for ids in whole])
    if context.head == "ctc":  # each label for a position, a blank between two
        spread = [[at for label in task.label_value(row, context) for at in (label, 0)] for row in rows]
        longest = max(map(len, spread))
        return np.eye(len(context.labels))[[ids + [0] * (longest - len(ids)) for ids in spread]]
    labels = encoded["labels"] if "labels" in encoded.column_names else None
    n = context.prepended_positions
    if context.head == "question_answering":
        width = n + max(map(len, encoded["input_ids"]))
        return tuple(np.eye(width)[encoded[name]] for name in ("start_positions", "end_positions"))
    if context.head == "token_classification":
        assert labels is not None
        width = n + max(map(len, labels))
        made = np.zeros((len(rows), width, len(context.labels)))
        for at, row in enumerate(labels):
            for place, label in enumerate(row):
                made[at, n + place, max(label, 0)] = 1.0
        return made
    assert labels is not None
    if task.family == "similarity":
        return np.array(labels, dtype=float).reshape(-1, 1)
    if task.problem_type == "multi_label_classification":
        return 2 * np.array(labels) - 1
    return np.eye(max(len(context.labels), 3))[list(labels)]


def test_prepended_positions_shift_labels_and_spans() -> None:
    ner, qa = host().task("ner"), host().task("qa")
    rows = rows_of(ner)
    context = context_of(ner, "encoder", rows, prepended=4)
    batch = ner.collator(context)(list(ner.encode_train(rows, context)))
    assert batch["labels"].shape[1] == batch["input_ids"].shape[1] + 4
    assert bool((batch["labels"][:, :4] == -100).all())
    rows = rows_of(qa)
    plain, shifted = (qa.encode_train(rows, context_of(qa, "encoder", rows, prepended=n)) for n in (0, 4))
    assert [start + 4 for start in plain["start_positions"]] == list(shifted["start_positions"])


def test_long_contexts_are_seen_through_windows_and_the_answer_is_found_again() -> None:
    qa = host().task("qa")
    words = [f"w{at % 60}" for at in range(200)]
    text = " ".join([*words, "paris", *words])
    rows = [
        {"context": text, "question": "where", "answers": {"text": ["paris"], "answer_start": [text.index("paris")]}}
    ]
    context = context_of(qa, "encoder", rows)
    encoded = qa.encode_eval(rows, context)
    assert len(encoded) > 5
    assert qa.decode(perfect(qa, context, rows, encoded), rows, encoded, context) == ["paris"]


def test_a_decoder_learns_the_answer_alone_and_prompts_are_padded_on_the_left() -> None:
    task = host().task("text_generation")
    rows = [{"source": "w1 w2 w3", "target": "w4"}, {"source": "w1", "target": "w5 w6"}]
    context = context_of(task, "decoder", rows)
    trained = list(task.encode_train(rows, context))
    assert [sum(label != -100 for label in row["labels"]) for row in trained] == [2, 3]
    prompts = task.collator(context)(list(task.encode_eval(rows, context)))
    assert prompts["attention_mask"][1].tolist()[0] == 0
    assert "labels" not in prompts
    assert context.tokenizer.padding_side == "right"


def test_a_template_replaces_the_prompt() -> None:
    task = host().task("summarization")
    context = TaskContext(tokenizer(), "encoder-decoder", "seq2seq_lm", 48, 16, template="Say {source} briefly {x}")
    assert task.prompt({"source": "{a}"}, context) == "Say {a} briefly {x}"  # type: ignore[attr-defined]


def test_an_unknown_label_is_named() -> None:
    task = host().task("classification")
    context = TaskContext(tokenizer(), "encoder", "sequence_classification", 48, labels=("a", "b"))
    with pytest.raises(DataError, match="label 'c' is not among the training labels"):
        task.encode_train([{"text": "w1", "label": "c"}], context)


class Haiku(Task):
    """A third party's task."""

    name = "haiku"
    title = "Haiku"
    family = "generation"
    heads = {"decoder": "causal_lm"}  # noqa: RUF012
    columns = (Column("line", "text"),)
    metrics = ("rougeL",)
    default_models = ("gpt2",)

    def input_texts(self, row: Any) -> tuple[str, ...]:
        """The line."""
        return (row["line"],)

    def target_text(self, row: Any) -> str:
        """The line."""
        return str(row["line"])

    def encode_train(self, rows: Any, context: Any) -> Any:
        """Nothing to do here."""

    def collator(self, context: Any, model: Any = None) -> Any:
        """Nothing to do here."""

    def decode(self, predictions: Any, rows: Any, encoded: Any, context: Any) -> list[Any]:
        """Nothing to do here."""
        return []

    def score(self, predictions: Any, rows: Any) -> dict[str, float]:
        """Nothing to do here."""
        return {}


def test_a_third_party_adds_a_task() -> None:
    class Plugin:
        @hookimpl
        def register_tasks(self) -> list[type[Task]]:
            return [Haiku]

    plugins = PluginHost.load(external=False)
    plugins.manager.register(Plugin())
    assert plugins.task("haiku").title == "Haiku"


SETS = {
    "sst2": "classification", "rte": "classification", "stsb": "similarity", "wnut17": "ner", "squad_xquad": "qa",
    "copa": "multiple_choice", "arc_easy": "multiple_choice", "dialogsum": "summarization",
    "e2e_nlg": "data_to_text", "gsm8k": "math_reasoning", "alpaca": "instruction",
    "mbpp_summarization": "code_summarization", "clinc150": "intent_detection",
}  # fmt: skip


@pytest.mark.parametrize(("name", "task"), SETS.items())
def test_real_data_are_read_and_encoded(name: str, task: str) -> None:
    chosen = host().task(task)
    rows = read_rows(data_set(name) / "validation.jsonl", chosen, limit=20)
    architecture = sorted(chosen.heads)[-1]
    context = context_of(chosen, architecture, rows)
    assert len(chosen.encode_train(rows, context)) >= len(rows) == 20
