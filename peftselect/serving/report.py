"""A finished run as one HTML page that needs nothing else: no script, no file beside it, no network."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.serving import charts
from peftselect.serving.comparing import read_run
from peftselect.words import count, energy, milliseconds, size, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peftselect.serving.comparing import Run

#: predictions that are shown
SAMPLES = 12
#: characters of an input that are shown
LONGEST = 1200


def report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of the run in ``folder`` (by default to its ``report.html``) and return where it lies."""
    run = read_run(folder)
    record = run.record
    title = f"{run.task.title} with {record['problem'].get('model', 'a model')} by {record['candidate']['method']}"
    metrics, advice = (_document(run.folder / name) for name in ("metrics.json", "advice.json"))
    parts = [
        f"<h1>{escape(title)}</h1>",
        _paragraph(_about(record), dim=True),
        _facts(run),
        _section("Scores", _scores(run, metrics)),
        _section("Why this method", _why(advice)),
        _section("What else there was", _pareto(advice)),
        _section("Learning curves", _curves(record, metrics)),
        _section("Predicted and measured", _costs(record)),
        _section("Predictions before and after", _samples(run)),
        _section("All settings", _settings(run)),
    ]
    page = Template((files("peftselect.serving") / "report.html").read_text(encoding="utf-8"))
    target = Path(output) if output is not None else run.folder / "report.html"
    text = page.substitute(title=escape(title), body="\n".join(filter(None, parts)))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror})", "give another --output") from error
    return target


def _document(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _about(record: dict[str, Any]) -> str:
    problem, environment = record["problem"], record.get("environment", {})
    rows = f"{problem.get('num_train_examples', 0):,} training rows of {problem.get('dataset', 'a data set')}"
    where = f"on {environment.get('device', 'an unknown device')}, seed {record.get('seed')}"
    return f"{rows}, {where}, {record.get('created_at', '')}. Record {record.get('id', '')}."


def _facts(run: Run) -> str:
    measured, metric = run.record.get("measured", {}), run.task.metric
    score, base = (run.record.get(name, {}).get(metric, {}).get("value") for name in ("scores", "baseline"))
    found = [(metric, f"{_number(base)} → {_number(score)}")]
    found.append(("trained", f"{run.record['candidate'].get('trainable_percent', 0):.3g} %"))
    found.append(("file", size(measured.get("adapter_bytes", 0))))
    found.append(("training", span(measured.get("train_seconds", 0))))
    if peak := measured.get("peak_memory_bytes"):
        found.append(("peak memory", size(peak)))
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in found)
    return f'<dl class="facts">{items}</dl>'


def _scores(run: Run, metrics: dict[str, Any]) -> str:
    bootstrap = run.bootstrap()
    rows = []
    for name in bootstrap.scores[0]:
        after, before = bootstrap.interval(0, name), bootstrap.interval(1, name)
        gain = bootstrap.difference(0, 1, name)
        rows.append((name, _interval(before), _interval(after), _interval(gain, signed=True)))
    where = f"{len(run.lines):,} {metrics.get('scored_on', 'test')} rows; 95 % bootstrap intervals in brackets."
    return _table(("metric", "base model", "tuned", "gain"), rows, numbers=True) + _paragraph(where, dim=True)


def _why(advice: dict[str, Any]) -> str:
    if not advice:
        return ""
    chosen = advice["chosen"]
    asked = "It was recommended." if advice["recommended"] else "It was asked for by name."
    sure = chosen.get("confidence", {})
    rows = [(item["kind"], item["text"], item["source"]) for item in chosen.get("reasons", ())]
    because = f"{asked} The advice rests on {sure.get('source', 'nothing')}: {sure.get('because', '')}"
    return _paragraph(because) + _table(("", "reason", "source"), rows)


def _pareto(advice: dict[str, Any]) -> str:
    """Predicted memory against the score by which candidates were ranked, where there were several."""
    items = [advice["chosen"], *advice["others"]] if advice.get("others") else []
    marks = [
        charts.Mark(item["memory"]["peak_bytes"] / 2**30, item["score"], item["method"], strong=not number)
        for number, item in enumerate(items)
    ]
    if not marks:
        return ""
    front, best = [], float("-inf")
    for mark in sorted(marks, key=lambda mark: (mark.x, -mark.y)):
        if mark.y > best:
            front.append((mark.x, mark.y))
            best = mark.y
    drawing = charts.scatter(marks, front, "predicted peak memory (GiB)", "score (points)")
    every = [(mark.label, f"{mark.y:+.2f}", f"{mark.x:.3g} GiB") for mark in sorted(marks, key=lambda mark: -mark.y)]
    return _figure(
        drawing, "Up and to the left is better; the dashed line joins those that nothing beats on both."
    ) + _details(f"All {len(every)} candidates", _table(("method", "score", "peak memory"), every, numbers=True))


def _curves(record: dict[str, Any], metrics: dict[str, Any]) -> str:
    history = metrics.get("history", {})
    loss = [(item["step"], item["loss"]) for item in history.get("training", ()) if item["loss"] is not None]
    drawn = [_figure(charts.lines([("loss", loss)], "optimizer step", "training loss"), "")] if loss else []
    metric = record.get("metric")
    looks = [(item["step"], item[metric]) for item in history.get("validation", ()) if item.get(metric) is not None]
    if looks:
        best = record.get("measured", {}).get("best_step")
        caption = f"The state of step {best:,} was kept." if best is not None else ""
        chart = charts.lines([(str(metric), looks)], "optimizer step", f"validation {metric}")
        drawn.append(_figure(chart, caption))
    return "".join(drawn)


def _costs(record: dict[str, Any]) -> str:
    measured, predicted = record.get("measured", {}), record.get("predicted", {})
    bars = []
    if expected := predicted.get("peak_memory_bytes"):
        bars.append(("predicted peak (GPU)", float(expected), size(expected)))
    for name, words in (("peak_memory_bytes", "measured peak"), ("peak_rss_growth_bytes", "growth in RAM (CPU)")):
        if (peak := measured.get(name)) is not None:
            bars.append((words, float(peak), size(peak)))
    every = list(dict.fromkeys([*predicted, *measured]))
    said = [name for name in every if isinstance(measured.get(name), str | list | dict)]
    rows = [
        (_quantity(name), _amount(name, predicted.get(name)), _amount(name, measured.get(name)))
        for name in every
        if name not in said
    ]
    figure = _figure(charts.bars(bars), "") if bars else ""
    table = _table(("", "predicted", "measured"), rows, numbers=True)
    return figure + table + "".join(_told(_quantity(name), measured[name]) for name in said)


def _told(name: str, value: Any) -> str:
    """What is no number: a sentence, or a document to unfold."""
    if isinstance(value, str):
        return _paragraph(f"{name.capitalize()}: {value}.", dim=True)
    return _details(name.capitalize(), f"<pre>{escape(json.dumps(value, indent=1))}</pre>")


def _quantity(name: str) -> str:
    """What a measured field is, without its unit."""
    words = name.replace("_seconds_per_row", " of a row").removesuffix("_bytes").removesuffix("_seconds")
    return words.removesuffix("_kwh").removesuffix("_percent").replace("_", " ")


def _amount(name: str, value: Any) -> str:
    """A measured field's value in its unit."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith(("_seconds", "_seconds_per_row")):
        return milliseconds(value) if value < 1 else f"{value:,.1f} s"
    if name.endswith("_kwh"):
        return energy(value)
    return f"{value:g} %" if name.endswith("_percent") else _cell(value)


def _samples(run: Run) -> str:
    changed = [line for line in run.lines if line["base"] != line["prediction"]]
    shown = (changed or run.lines)[:SAMPLES]
    rows = [
        (_short(" | ".join(line["input"])), line["target"], _plain(line["base"]), _plain(line["prediction"]))
        for line in shown
    ]
    about = f"{len(changed):,} of {len(run.lines):,} predictions changed; the first {len(shown)} of those."
    if not changed:
        about = f"No prediction changed; the first {len(shown)} of {len(run.lines):,}."
    return _paragraph(about, dim=True) + _table(("input", "wanted", "base model", "tuned"), rows)


def _settings(run: Run) -> str:
    rows = [(name, _cell(value)) for name, value in run.settings().items()]
    rows += [(name, _cell(value)) for name, value in run.record.get("environment", {}).items()]
    note = run.record.get("note", "")
    return _table(("setting", "value"), rows) + (_paragraph(note, dim=True) if note else "")


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""


def _paragraph(text: str, *, dim: bool = False) -> str:
    return f"<p{' class=dim' if dim else ''}>{escape(text)}</p>"


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _figure(drawing: str, caption: str) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawing}{below}</figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """A table; one of ``texts``, not of numbers, is laid out as blocks on a phone, each cell under its heading."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = ["", *(" class=number" if numbers else "" for _ in row[1:])]
        if tag == "td" and not numbers:
            kinds = [f' data-name="{escape(name)}"' for name in head]
        whole = "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))
        return whole.replace("_", "_<wbr>", row[0].count("_")) if numbers else whole  # long names may be broken there

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    kind = "" if numbers else " class=texts"
    return (
        f'<div class="wide"><table{kind}><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _interval(item: Any, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value = format(item.value, f"{sign}.4f")
    return (
        value
        if item.low is None
        else f"{value} ({format(item.low, f'{sign}.3f')} to {format(item.high, f'{sign}.3f')})"
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.5g}" if isinstance(value, float) else count(value) if value >= 10**6 else f"{value:,}"


def _plain(prediction: Any) -> str:
    return " ".join(map(str, prediction)) if isinstance(prediction, list) else str(prediction)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
