"""Runs on two axes: the front is right, in words, in JSON, in SVG and in PNG."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from peftselect.errors import InputError
from peftselect.pareto import front
from peftselect.record import RunRecord, Score
from peftselect.results_plot import AXES, make_plot


def runs(*points: tuple[float, float], dataset: str = "a") -> list[RunRecord]:
    """One run for each (peak memory in GiB, score)."""
    return [
        RunRecord("test", "ok", {"task": "qa", "dataset": dataset}, {"method": f"m{number}"}, "f1",
                  {"f1": Score(score)}, measured={"peak_memory_bytes": int(memory * 2**30), "train_seconds": 60})
        for number, (memory, score) in enumerate(points)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 1)], [True]),
        ([(1, 2), (2, 1), (2, 2)], [True, True, False]),
        ([(1, 1), (1, 1)], [True, True]),
        ([(1, 1), (1, 2)], [True, False]),
        ([(1, 5, 5), (5, 1, 5), (5, 5, 1), (5, 5, 5)], [True, True, True, False]),
        ([], []),
    ],
)
def test_the_front_by_hand(points: list[tuple[float, ...]], expected: list[bool]) -> None:
    assert front(points) == expected


def test_the_front_of_runs_and_the_largest_comparison() -> None:
    records = [*runs((4, 0.5), (2, 0.4), (3, 0.3), (8, 0.5)), *runs((1, 1), dataset="b")]
    plot = make_plot(records, "memory", "score")
    assert [(dot.record.candidate["method"], dot.best) for dot in plot.dots] == [
        ("m1", True), ("m2", False), ("m0", True), ("m3", False)]  # fmt: skip
    assert (plot.title, plot.others) == ("test, qa, a", 1)
    assert make_plot(records, "memory", "time").dots[0].best


def test_lower_scores_are_better_where_they_are() -> None:
    records = [
        RunRecord(
            "test", "ok", {}, {"method": name}, "wer", {"wer": Score(value, None, False)}, measured={"train_seconds": 1}
        )
        for name, value in (("good", 0.1), ("bad", 0.9))
    ]
    assert [dot.best for dot in make_plot(records, "time", "score").dots] == [True, False]


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match=r"^both axes are time$"):
        make_plot(runs((1, 1)), "time", "time")
    with pytest.raises(InputError, match=r"^no record has both adapter and score$"):
        make_plot(runs((1, 1)), "adapter", "score")


def test_the_plot_in_the_terminal_as_json_and_as_pictures(peftselect, tmp_path: Path) -> None:
    done = peftselect("results", "plot", "--source", "PEFT project", "--output", "plot.svg")
    assert done.returncode == 0, done.stderr
    assert "●" in done.stdout and "·" in done.stdout
    assert "peak memory (GiB)" in done.stdout and "Pareto front" in done.stdout
    shown = json.loads(
        peftselect("results", "plot", "--source", "PEFT project", "--json", "--output", "plot.png").stdout
    )
    best = [run for run in shown["runs"] if run["front"]]
    assert 1 < len(best) < len(shown["runs"]) == 37
    for run in shown["runs"]:
        beaten = any(
            o["x"] <= run["x"] and o["y"] >= run["y"] and (o["x"], o["y"]) != (run["x"], run["y"]) for o in best
        )
        assert beaten != run["front"]
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    names = {item.text for item in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {run["method"] for run in best} <= names
    pixels(tmp_path / "plot.png")


def pixels(file: Path) -> None:
    """Read a PNG back: its checksums, its size, and that something is drawn on it in every colour of the plot."""
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        parts[name] = body
        at += 12 + length
    width, height, depth, kind = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    assert (depth, kind) == (8, 2)
    raw = zlib.decompress(parts[b"IDAT"])
    assert len(raw) == height * (1 + 3 * width)
    colours = {
        raw[at : at + 3]
        for row in range(height)
        for at in range(row * (1 + 3 * width) + 1, (row + 1) * (1 + 3 * width), 3)
    }
    assert {bytes(colour) for colour in ((255, 255, 255), (34, 34, 34), (200, 85, 61), (42, 111, 151))} <= colours


def test_every_pair_of_axes_is_drawn_from_the_shipped_records(peftselect) -> None:
    for x, y in zip(AXES, [*list(AXES)[1:], "score"], strict=True):
        done = peftselect("results", "plot", "--x", x, "--y", y, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["runs"]


def test_a_picture_of_another_kind_and_a_place_that_is_not_there(peftselect) -> None:
    done = peftselect("results", "plot", "--output", "plot.pdf")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: plot.pdf: a plot is written as .svg or .png")
    done = peftselect("results", "plot", "--output", "nowhere/plot.svg")
    assert done.returncode == 2
    assert "nowhere/plot.svg cannot be written (No such file or directory)" in done.stderr
