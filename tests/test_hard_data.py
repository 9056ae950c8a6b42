"""Rows that real files hold and that readers stumble over: long fields, broken bytes, numbers for tags, repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftselect import TaskContext
from peftselect.data import read_rows
from peftselect.errors import DataError
from peftselect.plugin_manager import host
from tests.tiny import tokenizer

NER, QA, CHOICE = (host().task(name) for name in ("ner", "qa", "multiple_choice"))


def test_tags_that_datasets_wrote_as_numbers_get_their_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-LOC"]))})
    Dataset.from_dict({"tokens": [["in", "paris"]], "ner_tags": [[0, 1]]}, features=features).save_to_disk(tmp_path)
    assert read_rows(tmp_path, NER) == [{"tokens": ["in", "paris"], "tags": ["O", "B-LOC"]}]


def test_bare_numbers_are_no_tags(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"tokens": ["in", "paris"], "tags": [0, 1]}) + "\n")
    with pytest.raises(DataError, match=r"a.jsonl:1: column 'tags' is \[0, 1\]") as caught:
        read_rows(file, NER)
    assert "tags by name" in str(caught.value.hint)


def test_tags_without_a_scheme_are_scored_word_by_word() -> None:
    scores = NER.score([["NOUN", "VERB", "NOUN"]], [{"tags": ["NOUN", "VERB", "VERB"]}])
    # two of three words right: precision and recall 2/3
    assert scores["seqeval_f1"] == pytest.approx(2 / 3)
    assert scores["seqeval_accuracy"] == pytest.approx(2 / 3)


def byte_level() -> Any:
    """A tokenizer in the manner of RoBERTa's: a word's first piece carries the blank before it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(special_tokens=["<pad>", "<unk>", "</s>"], vocab_size=400, show_progress=False)
    inner.train_from_iterator(["they went to paris and paris was fine"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def test_split_words_are_read_as_in_running_text_by_byte_level_tokenizers() -> None:
    reader = byte_level()
    row = {"tokens": ["went", "to", "paris"], "tags": ["O", "O", "B-LOC"]}
    encoded = NER.encode_train([row], TaskContext(reader, "encoder", "token_classification", 48, labels=("B-LOC", "O")))
    assert encoded["input_ids"][0] == reader(" went to paris")["input_ids"]
    assert [label for label in encoded["labels"][0] if label != -100] == [1, 1, 0]


def test_broken_bytes_in_an_array_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    good = json.dumps([{"context": "x" * 70000, "question": "y", "answers": {"text": [], "answer_start": []}}] * 3)
    file.write_bytes(good.encode()[:-1] + b"\xff]")
    with pytest.raises(DataError, match=r"a\.json is not text \(byte \d+ is not UTF-8\)"):
        read_rows(file, QA)


def test_fields_of_any_length_are_read_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\n" + "long " * 40_000 + ",yes\n")
    assert len(read_rows(file, host().task("classification"))[0]["text"]) > 131_072


def test_a_question_longer_than_the_model_reads_leaves_room_for_the_context() -> None:
    row = {
        "question": "who " * 200,
        "context": "the dog runs to paris and the cat sleeps",
        "answers": {"text": ["paris"], "answer_start": [16]},
    }
    encoded = QA.encode_train([row], TaskContext(tokenizer(), "encoder", "question_answering", 48))
    assert all(len(ids) <= 48 for ids in encoded["input_ids"])
    assert max(encoded["start_positions"]) > 0
    with pytest.raises(Exception, match="Truncation error"):
        tokenizer()(row["question"], row["context"], truncation="only_second", max_length=48)


def test_a_choice_that_repeats_the_right_one_is_right() -> None:
    rows = [{"question": "q", "choices": ["a", "b", "a"], "label": 0}] * 2
    assert CHOICE.score([2, 1], rows) == {"accuracy": 0.5}


def test_labels_that_training_lacks_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "eval.jsonl"
    file.write_text('{"text": "a", "label": "x"}\n\n{"text": "b", "label": "z"}\n')
    with pytest.raises(DataError, match=r"eval\.jsonl:3: label: 'z' is not among the training labels") as caught:
        read_rows(file, host().task("classification"), labels=("x", "y"))
    assert caught.value.hint == "they are: x, y"
