"""Tasks that are advised on alone: the answer says who trains them, and what ranks the methods."""

from __future__ import annotations

from pathlib import Path

import pytest

import peftselect
from peftselect import api
from peftselect.errors import UnsupportedError
from peftselect.plugin_manager import host

ADVISED = [task for task in host().tasks().values() if task.elsewhere]


def test_there_are_some() -> None:
    assert {"alignment", "speaker_diarization"} <= {task.name for task in ADVISED}


@pytest.mark.parametrize("task", ADVISED, ids=lambda task: task.name)
def test_run_says_who_trains_it_and_advice_goes_on(task: peftselect.Task, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        peftselect.plan_run(task.name, task.default_models[-1], train=tmp_path / "no-such-file.jsonl")
    assert caught.value.message == f"{task.title} is not trained here but by {task.elsewhere}"
    assert f"recommend --task {task.name}" in str(caught.value.hint)
    answer = peftselect.recommend(task.name, task.default_models[-1], trace="never")
    assert answer.recommended is not None
    assert any(note in answer.notes for note in task.notes)


def test_diarization_names_the_tables_winner_with_its_source() -> None:
    answer = peftselect.recommend("diarization", "hubert-base", trace="never")
    best = answer.recommended
    assert best is not None and best.method == "adapter_houlsby"
    assert any("table 2.12" in reason.source for reason in best.reasons)
    lora = answer.find("lora")
    assert lora is not None and lora.tie_group != 1


def test_where_no_script_can_be_written_one_line_says_so(tmp_path: Path) -> None:
    answer = peftselect.recommend("diarization", "hubert-base", trace="never")
    with pytest.raises(UnsupportedError, match="no script can be written for SUPERB's recipe in s3prl"):
        api.export(answer, tmp_path / "script.py")
    assert not (tmp_path / "script.py").exists()
