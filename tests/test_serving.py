"""What is done with a trained adapter, through the command line: predict, evaluate, merge, compare, report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.cli import main
from peftselect.plugin_manager import host
from peftselect.serving import intervals
from peftselect.serving.intervals import Bootstrap
from tests.test_run import RUNS, Outputs, arguments, make_row, read_json, run_all, write_rows


@pytest.fixture(scope="module")
def runs(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """The output folder of each of RUNS, and of a second classifier."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTSELECT_HOME", str(folder / "home"))
        made = run_all(folder, tiny_models)
        order = arguments(folder, "classification", tiny_models("bert"), "bitfit")
        made["second classifier"] = peftselect.run(**order).output
        order = arguments(folder, "summarization", tiny_models("t5"), "ia3")
        made["second summarizer"] = peftselect.run(**order).output
        yield made


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What a command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    output = capsys.readouterr()
    assert done.value.code == code, output.err
    return output.out if code == 0 else output.err


def task_rows(task: str) -> list[dict[str, Any]]:
    """The test rows of a run."""
    return [make_row(task, number) for number in range(52, 64)]


@pytest.mark.parametrize("task", RUNS)
def test_predictions_are_those_of_the_run(runs: Outputs, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [json.loads(line)["prediction"] for line in (runs[task] / "predictions.jsonl").read_text().splitlines()]
    answers = {"label", "score", "ner_tags", "answers", "answer", "target"}
    asked = runs[task].parent / f"{task}-asked.jsonl"
    rows = [{name: cell for name, cell in row.items() if name not in answers} for row in task_rows(task)]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = said(capsys, "predict", runs[task], "--data", asked, "--json").splitlines()
    found = [json.loads(line)["prediction"] for line in lines]
    assert found == (pytest.approx(kept, abs=1e-4) if task == "similarity" else kept)


def test_texts_come_in_by_option_and_go_out_as_lines(runs: Outputs, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [json.loads(line) for line in (runs["classification"] / "predictions.jsonl").read_text().splitlines()]
    texts = [word for row in kept[:3] for word in ("--text", row["input"][0])]
    assert said(capsys, "predict", runs["classification"], *texts).splitlines() == [
        row["prediction"] for row in kept[:3]
    ]


def test_predictions_are_written_where_asked(runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", "classification", range(3))
    said(capsys, "predict", runs["classification"], "--data", data, "--output", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [make_row("classification", number)["text"] for number in range(3)]
    assert {row["prediction"] for row in rows} <= {"positive", "negative"}


WRONG = {
    "compare one": (["compare", "{qa}"], "there is nothing to compare: one run is given"),
    "compare tasks": (["compare", "{qa}", "{ner}"], "they are of different tasks: ner, qa"),
    "report of nothing": (["report", "."], ". holds no run"),
    "report into nothing": (["report", "{qa}", "--output", "no/where.html"], "no/where.html cannot be written"),
    "no folder": (["predict", "nowhere", "--text", "a"], "there is no folder nowhere"),
    "no adapter": (["predict", ".", "--text", "a"], "holds neither a run nor an adapter"),
    "half a pair": (["predict", "{similarity}", "--text", "a"], "text 1 has 1 of 2 parts"),
    "no file": (["evaluate", "{classification}", "--data", "none.jsonl"], "there is no file none.jsonl"),
    "two tasks": (["evaluate", "{classification}", "{qa}", "--data", "x"], "the adapters are for different tasks"),
    "merge a prompt": (["merge", "{ner}", "--output", "m"], "prompt_tuning cannot be merged into its base"),
    "merge a model": (["merge", "{similarity}", "--output", "m"], "is a whole model already"),
    "merge into a run": (["merge", "{classification}", "--output", "{qa}"], "is there already"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_said_in_a_line(
    case: str, runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, message = WRONG[case]
    named = {task: str(folder) for task, folder in runs.items()}
    text = said(capsys, *(word.format(**named) for word in words), code=2)
    assert message in text
    assert "hint: " in text and "Traceback" not in text


def test_evaluation_has_intervals_comparisons_groups_and_what_was_forgotten(
    runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "FEW_DRAWS", 20)
    rows = [{**make_row("classification", n), "dialect": "north" if n % 3 else "south"} for n in range(64, 134)]
    data = tmp_path / "fresh.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = write_rows(tmp_path / "old.jsonl", "classification", range(140, 160))
    folders = [runs["classification"], runs["second classifier"]]
    words = ["--data", data, "--base", "--group-by", "dialect", "--forgetting", second]
    found = json.loads(said(capsys, "evaluate", *folders, *words, "--json"))
    names = ["out-classification-lora", "out-classification-bitfit", "base model"]
    assert list(found["scores"]) == names
    assert found["rows"] == 70 and found["draws"] == 1000
    for scores in found["scores"].values():
        for interval in scores.values():
            assert interval["low"] <= interval["value"] <= interval["high"]
    accuracy = {name: found["scores"][name]["accuracy"]["value"] for name in names}
    assert found["differences"][names[1]]["value"] == pytest.approx(accuracy[names[1]] - accuracy[names[0]])
    groups = found["groups"][names[0]]
    assert {name: group["rows"] for name, group in groups.items()} == {"north": 47, "south": 23}
    mean = sum(group["rows"] * group["value"] for group in groups.values()) / 70
    assert mean == pytest.approx(accuracy[names[0]])
    assert found["gaps"][names[0]] == pytest.approx(abs(groups["north"]["value"] - groups["south"]["value"]))
    assert set(found["forgotten"]) == set(names[:2])
    shown = said(capsys, "evaluate", *folders, *words)
    for text in (
        "95 % intervals",
        "By group (accuracy)",
        "best - worst",
        f"Against {names[0]}",
        "second set",
    ):
        assert text in shown


def test_an_adapter_that_others_wrote_is_scored_too(
    runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "FEW_DRAWS", 20)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (bare / name).write_bytes((runs["classification"] / name).read_bytes())
    data = write_rows(tmp_path / "fresh.jsonl", "classification", range(64, 94))
    ours = json.loads(said(capsys, "evaluate", runs["classification"], "--data", data, "--json"))
    theirs = json.loads(said(capsys, "evaluate", bare, "--task", "classification", "--data", data, "--json"))
    assert list(theirs["scores"].values()) == list(ours["scores"].values())
    assert "does not say what the adapter is for" in said(capsys, "evaluate", bare, "--data", data, code=2)


def test_intervals_are_those_of_a_mean() -> None:
    task = host().task("classification")
    rows = [{"text": "", "label": "ab"[number % 2]} for number in range(400)]
    right = [row["label"] for row in rows]
    some = [label if number % 5 else "b" for number, label in enumerate(right)]
    bootstrap = Bootstrap(task, rows, [right, some])
    assert bootstrap.interval(0, "accuracy").low == bootstrap.interval(0, "accuracy").high == 1.0
    interval, share = bootstrap.interval(1, "accuracy"), bootstrap.scores[1]["accuracy"]
    spread = 1.96 * (share * (1 - share) / 400) ** 0.5
    assert interval.low == pytest.approx(share - spread, abs=0.01)
    assert interval.high == pytest.approx(share + spread, abs=0.01)
    difference = bootstrap.difference(0, 1, "accuracy")
    assert difference.low is not None and 0 < difference.low < difference.value


@pytest.mark.parametrize("task", ["classification", "second summarizer", "multiple_choice"])
def test_a_merged_model_answers_the_same(
    task: str, runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, "merge", runs[task], "--output", tmp_path / "merged", "--json"))
    assert found["share"] < 1e-4
    assert (tmp_path / "merged" / "model.safetensors").exists()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    if task != "classification":
        return
    from transformers import pipeline

    ask = pipeline("text-classification", model=str(tmp_path / "merged"))
    kept = [json.loads(line) for line in (runs[task] / "predictions.jsonl").read_text().splitlines()]
    assert [ask(row["input"][0])[0]["label"] for row in kept] == [row["prediction"] for row in kept]


def test_a_merge_that_changes_the_answers_writes_nothing(
    runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftselect import modeling

    merge = modeling.merge

    def wrongly(model: Any) -> Any:
        import torch

        merged = merge(model)
        with torch.no_grad():
            merged.classifier.weight.add_(1.0)
        return merged

    monkeypatch.setattr(modeling, "merge", wrongly)
    text = said(capsys, "merge", runs["classification"], "--output", tmp_path / "merged", code=2)
    assert "more than rounding explains" in text
    assert not (tmp_path / "merged").exists()
    assert read_json(runs["classification"] / "serving.json")["mergeable"] is True


def test_runs_are_put_side_by_side(runs: Outputs, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [runs["classification"], runs["second classifier"]]
    found = json.loads(said(capsys, "compare", *folders, "--json"))
    records = [read_json(folder / "run.json") for folder in folders]
    assert found["runs"] == ["out-classification-lora", "out-classification-bitfit"]
    assert found["settings"]["method"] == ["lora", "bitfit"]
    assert "seed" not in found["settings"]
    assert found["scores"]["accuracy"] == [record["scores"]["accuracy"]["value"] for record in records]
    assert found["costs"]["steps"] == [5, 5]
    gap = found["scores"]["accuracy"][1] - found["scores"]["accuracy"][0]
    assert found["differences"][0] is None
    assert found["differences"][1]["value"] == pytest.approx(gap, abs=1e-5)
    shown = said(capsys, "compare", *folders)
    assert "What differs" in shown
    assert "out-classification-bitfit against out-classification-lora: accuracy" in shown


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href", "data", "action"}]
        if tag not in {"meta", "line", "circle", "rect", "polyline", "wbr"} or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("task", RUNS)
def test_the_report_is_one_page_that_needs_nothing_else(
    task: str, runs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "report", runs[task])
    text = (runs[task] / "report.html").read_text()
    page = Page(text)
    assert page.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert page.open == []
    assert "width=device-width" in text
    record = read_json(runs[task] / "run.json")
    for name, score in record["scores"].items():
        assert name in page.text
        assert f"{score['value']:.4f}" in page.text
    for part in ("Why this method", "Learning curves", "Predicted and measured", "Predictions before and after"):
        assert part in page.text
    assert page.tags.count("polyline") >= 2
    for name in record["candidate"]["hyperparameters"]:
        assert name in page.text


def test_the_report_escapes_what_people_wrote_and_shows_the_candidates(
    runs: Outputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs["summarization"], tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    lines[0]["prediction"], lines[0]["base"] = "<script>alert('x')</script>", "$title"
    (tmp_path / "run" / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    advice = read_json(tmp_path / "run" / "advice.json")
    rival = {**advice["chosen"], "method": "rival", "score": advice["chosen"]["score"] - 1.0}
    (tmp_path / "run" / "advice.json").write_text(json.dumps({**advice, "recommended": True, "others": [rival]}))
    said(capsys, "report", tmp_path / "run", "--output", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text and "$title" in text
    assert "What else there was" in text and "rival</text>" in text
