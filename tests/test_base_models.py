"""The catalogue's facts against publicly known counts; every way a reference can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftselect.base_models import CatalogueEntry, catalogue, resolve_base_model
from peftselect.errors import InputError
from peftselect.shapes import read_shape
from peftselect.shapes.body import FAMILIES

ENTRIES = sorted(catalogue().values(), key=lambda entry: entry.name)
POOLED = {"bert", "roberta", "xlm-roberta", "albert"}


def test_the_catalogue_holds_what_the_thesis_names_and_what_people_use() -> None:
    names = " ".join(catalogue())
    for family in ("t5", "flan-t5", "bert", "roberta", "distilbert", "albert", "bart", "gpt2", "gpt-neo", "gpt-j",
                   "opt", "bloom", "pythia", "llama-2", "llama-3.2", "codet5", "starcoder", "qwen", "mistral", "gemma",
                   "phi", "whisper", "wav2vec2", "hubert", "wavlm"):  # fmt: skip
        assert family in names


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_facts_give_the_publicly_known_count(entry: CatalogueEntry) -> None:
    shape = read_shape(entry.config)
    if shape.architecture == "encoder":
        hidden = shape.hidden_size
        pooler = hidden * hidden + hidden if shape.model_type in POOLED else 0
        assert FAMILIES[shape.model_type](entry.config).parameters + pooler == entry.parameters
    else:
        assert shape.total_parameters == entry.parameters


def test_names_hub_ids_and_case_all_lead_to_the_entry() -> None:
    for reference in ("flan-t5-base", "google/flan-t5-base", "Google/FLAN-T5-base"):
        model = resolve_base_model(reference)
        assert (model.name, model.source, model.load_from) == ("flan-t5-base", "catalogue", "google/flan-t5-base")


def test_a_folder_is_read_through_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 32}))
    model = resolve_base_model(str(tmp_path))
    assert (model.source, model.model_type, model.folder) == ("folder", "bert", tmp_path)


def test_a_folder_called_like_a_catalogue_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert resolve_base_model("gpt2").model_type == "llama"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "{folder} has no config.json"),
        ("{", "{folder}/config.json is not JSON (line 1: Expecting property name enclosed in double quotes)"),
        ("[]", "{folder}/config.json has no model_type"),
        ("{}", "{folder}/config.json has no model_type"),
        (b"\xff\xfe\x00", "{folder}/config.json cannot be read"),
    ],
)
def test_a_broken_folder_says_what_is_wrong(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        resolve_base_model(str(tmp_path))
    assert caught.value.message.startswith(message.format(folder=tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("flan-t5-bas", "unknown base model 'flan-t5-bas'", "did you mean flan-t5-base"),
        ("./nowhere", "there is no folder ./nowhere", "give a folder with config.json, or a model's name"),
        ("nobody/nothing", "nobody/nothing is not in the catalogue and the hub cannot be reached", "give a folder"),
    ],
)
def test_unknown_references_say_what_to_do(reference: str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_base_model(reference)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


def test_an_adapter_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter, not a base model"):
        resolve_base_model(str(tmp_path))
    with pytest.raises(InputError, match="is a file, not a model folder"):
        resolve_base_model(str(tmp_path / "adapter_config.json"))


def test_a_checkpoint_without_a_pooler_is_recognised_by_its_header(tiny_models) -> None:
    assert resolve_base_model(str(tiny_models("bert"))).lacks_pooler
    assert resolve_base_model("roberta-base").lacks_pooler
    assert not resolve_base_model("bert-base-uncased").lacks_pooler


def test_a_new_pooler_belongs_to_the_head() -> None:
    config = resolve_base_model("bert-base-uncased").config
    old, new = (read_shape(config, "sequence_classification", 2, new_pooler=missing) for missing in (False, True))
    assert new.head.modules == ("classifier", "pooler")
    assert new.head.parameters - old.head.parameters == 768 * 768 + 768
    assert new.total_parameters == old.total_parameters
    tagging = read_shape(config, "token_classification", 2, new_pooler=True)
    assert tagging.head.modules == ("classifier",)


def test_a_folder_called_model_is_named_with_the_one_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "example" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert resolve_base_model(str(folder)).name == "example/model"
