"""What the advice on speech and code rests on: the thesis's tables 2.6, 2.11, 2.12 and 2.13, whose winners it names."""

from __future__ import annotations

from functools import cache

import pytest

import peftselect
from peftselect.features import Cell, observations
from peftselect.plugin_manager import host
from peftselect.results import shipped_records
from peftselect.selector import RankedCandidate, Recommendation

TABLES = ("2.6", "2.11", "2.12", "2.13")
#: a table's model -> the catalogue's
MODELS = {"wav2vec2": "wav2vec2-base", "codet5": "codet5-base"}
#: no task of ours: what the tables say of it stands in the rules alone
NOT_OURS: set[str] = set()


def winners() -> list[tuple[Cell, str]]:
    """The best method of each comparison of the tables, where we have the method and the task."""
    cells: dict[Cell, dict[str, float]] = {}
    for item in observations(shipped_records(host())):
        if item.cell.source.split()[2] in TABLES and item.cell.task not in NOT_OURS:
            cells.setdefault(item.cell, {})[item.method] = item.difference
    best = [(cell, max(methods, key=lambda name: methods[name])) for cell, methods in cells.items()]
    return [(cell, name) for cell, name in best if name in host().methods()]


WINNERS = winners()


@cache
def answer(task: str, model: str) -> Recommendation:
    return peftselect.recommend(task, MODELS.get(model, model), num_examples=5000, trace="never")


def first_group(found: Recommendation) -> set[str]:
    return {item.method for item in found.candidates if item.tie_group == 1}


def quality(found: Recommendation, method: str) -> float:
    return candidate(found, method).quality


def candidate(found: Recommendation, method: str) -> RankedCandidate:
    item = found.find(method)
    assert item is not None, f"{method} was left out"
    return item


def test_every_table_has_winners_to_check() -> None:
    assert {cell.source.split()[2] for cell, _ in WINNERS} == set(TABLES)
    assert len(WINNERS) >= 20


@pytest.mark.parametrize(("cell", "method"), WINNERS, ids=lambda value: getattr(value, "dataset", str(value)))
def test_the_winner_is_in_the_first_group_with_the_table_as_source(cell: Cell, method: str) -> None:
    found = answer(cell.task, cell.model)
    assert method in first_group(found)
    assert any(cell.source in reason.source for reason in candidate(found, method).reasons)
    assert len(first_group(found)) <= 14  # those that the tables compare, and what differs from them in name alone
    assert len(first_group(found)) < len(found.candidates)


def test_on_whisper_the_head_alone_and_lora_come_before_adapters() -> None:
    found = answer("speech_emotion", "whisper-tiny")
    for adapter in ("adapter_houlsby", "parallel_adapter", "embedding_prompt"):
        if found.find(adapter) is not None:
            assert min(quality(found, "head_only"), quality(found, "lora")) > quality(found, adapter)


def test_on_wav2vec_and_wavlm_lora_comes_before_the_head_alone() -> None:
    for model in ("wav2vec2-base", "wavlm-base-plus"):
        found = answer("speech_emotion", model)
        assert quality(found, "lora") > quality(found, "head_only")


def test_prefix_tuning_for_speaker_recognition_and_speech_recognition_on_wav2vec() -> None:
    for task in ("speaker_recognition", "speech_recognition"):
        found = answer(task, "wav2vec2")
        assert "prefix_tuning" in first_group(found)
        assert quality(found, "prefix_tuning") > quality(found, "lora")


def test_lora_is_not_recommended_for_phonemes_on_hubert() -> None:
    found = answer("phoneme_recognition", "hubert-base")
    assert "lora" not in first_group(found)
    assert any(reason.kind == "against" and "2.12" in reason.source for reason in candidate(found, "lora").reasons)
