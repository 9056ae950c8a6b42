"""The README.md that lies beside an adapter: data, base model, method, parameters, memory, time, scores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peftselect.words import count, energy, milliseconds, size, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftselect.method import Candidate
    from peftselect.record import RunRecord
    from peftselect.training.plan import RunPlan

#: what was measured of answering, as the comparison words it
_DEPLOYED = {"inference_seconds_per_row": "predicting a row", "first_token_seconds": "from a prompt to its first token"}


def model_card(plan: RunPlan, candidate: Candidate, record: RunRecord, snippet: str) -> str:
    """The card in Markdown, with the header that model hubs read."""
    problem, method = plan.problem, candidate.method
    sections = [
        _front_matter(plan, candidate),
        f"# {problem.task.title} with {problem.model.name} by {method.title}\n",
        f"{method.summary} Trained and measured by peftselect; `run.json` is the whole record.\n",
        "## Scores\n",
        _scores(plan, record),
        "## Load it\n",
        f"```python\n{snippet}\n```\n",
        "## Data\n",
        _data(plan),
        "## Method\n",
        _table(("setting", "value"), list(_method(plan, candidate))),
        "## Predicted and measured\n",
        _table(("", "predicted", "measured"), comparison(plan, record)),
        "## Environment\n",
        _table(("", ""), [(name, str(value)) for name, value in record.environment.items()]),
    ]
    return "\n".join(sections)


def comparison(plan: RunPlan, record: RunRecord) -> list[tuple[str, str, str]]:
    """Rows of (what, predicted, measured); what nobody measured or predicted is a dash."""
    chosen, measured = plan.chosen, record.measured
    band = f" ± {chosen.memory.error_band_percent:.0f} %"
    memory = "-"
    if (peak := measured.get("peak_memory_bytes")) is not None:
        memory = f"{size(peak)} ({100 * (peak / chosen.memory.peak_bytes - 1):+.1f} %)"
    # a stage after the method makes another file of it, and a baseline none
    as_predicted = plan.leaves != "nothing" and not any(item.place == "after" for item in plan.stages)
    rows = [
        ("trainable parameters", count(chosen.trainable_parameters), count(measured["trainable_parameters"])),
        ("file size", size(chosen.adapter_bytes) if as_predicted else "-", size(measured["adapter_bytes"])),
        ("peak memory of a training step (GPU)", size(chosen.memory.peak_bytes) + band, memory),
    ]
    if (growth := measured.get("peak_rss_growth_bytes")) is not None:
        rows.append(("growth of the process's memory (CPU; another thing)", "-", size(growth)))
    expected = chosen.train_seconds
    interval = f"{span(expected.value)} ({span(expected.low)} to {span(expected.high)})" if expected else "-"
    rows.append(("training time", interval, span(measured["train_seconds"])))
    for name, words in _DEPLOYED.items():
        if (taken := measured.get(name)) is not None:
            before = measured.get(f"base_{name}")
            beside = "" if before is None else f" (base model {milliseconds(before)})"
            rows.append((words, "-", milliseconds(taken) + beside))
    if (spent := measured.get("energy_kwh")) is not None:
        rows.append(("energy of training (codecarbon)", "-", energy(spent)))
    if chosen.predicted and (score := record.scores.get(chosen.predicted.metric)):
        guess = chosen.predicted
        interval = f"{guess.value:.3f} ({guess.low:.3f} to {guess.high:.3f})"
        rows.append((guess.metric, interval, f"{score.value:.3f}"))
    return rows


def score_rows(record: RunRecord) -> list[tuple[str, str, str, str]]:
    """Rows of (metric, base model, tuned, gain in points); the primary metric comes first."""
    rows = []
    for name, score in sorted(record.scores.items(), key=lambda item: item[0] != record.metric):
        before = record.baseline.get(name)
        gain = "" if before is None else f"{100 * (score.value - before.value):+.1f}"
        rows.append((name, "-" if before is None else f"{before.value:.4f}", f"{score.value:.4f}", gain))
    return rows


def where_scored(plan: RunPlan) -> str:
    """The rows that the scores are of, in words."""
    rows = f"{len(plan.splits.test):,}"
    if plan.splits.test_is_validation:
        return f"{rows} validation rows, which also chose the best state: expect somewhat less on new data"
    return f"{rows} test rows, which training never saw"


def untrained_head(plan: RunPlan) -> str:
    """A sentence where the base model's score is that of a head with random weights."""
    return "The base model's head is untrained, so it guesses." if plan.problem.shape.head.parameters else ""


def _front_matter(plan: RunPlan, candidate: Candidate) -> str:
    problem = plan.problem
    library = "peft" if plan.leaves == "adapter" else "transformers"
    lines = [
        "---",
        f"base_model: {json.dumps(problem.model.load_from)}",
        f"library_name: {library}",
        "tags:",
        *(f"- {tag}" for tag in ("peftselect", candidate.method.name, problem.task.name)),
        "---",
    ]
    return "\n".join(lines) + "\n"


def _scores(plan: RunPlan, record: RunRecord) -> str:
    text = " ".join(filter(None, (f"On {where_scored(plan)}.", untrained_head(plan))))
    return f"{text}\n\n" + _table(("metric", "base model", "tuned", "points"), score_rows(record))


def _data(plan: RunPlan) -> str:
    splits = plan.splits
    numbers = f"{len(splits.train):,} training, {len(splits.validation):,} validation, {len(splits.test):,} test rows"
    if splits.test_is_validation:
        numbers = f"{len(splits.train):,} training, {len(splits.validation):,} validation rows"
    lines = [f"`{plan.dataset}`: {numbers}.", *(f"- {line}" for line in (*plan.notes, *plan.report.lines()))]
    if splits.labels:
        lines.append(f"- labels: {', '.join(splits.labels)}")
    return "\n".join([lines[0], "", *lines[1:]]) + "\n"


def _method(plan: RunPlan, candidate: Candidate) -> Iterator[tuple[str, str]]:
    chosen, recipe, method = plan.chosen, candidate.recipe, candidate.method
    yield "method", f"{method.title} ({', '.join(item.url for item in method.references)})"
    yield "base model", f"{plan.problem.model.name} ({plan.problem.model.load_from})"
    percent = 100 * chosen.trainable_parameters / chosen.total_parameters
    yield "trainable parameters", f"{chosen.trainable_parameters:,} ({percent:.3g} % of {chosen.total_parameters:,})"
    yield "changed parameters", f"{chosen.changed_parameters:,}"
    for item in plan.stages:
        yield f"{item.place} training", str(item)
    if rank := method.rank(candidate.values):
        yield "rank", str(rank)
    for name, value in candidate.values.items():
        if value is not None:
            yield name, _text(value)
    for name, value in vars(recipe).items():
        if name != "learning_rate":
            yield name.replace("_", " "), "none" if value is None else _text(value)
    yield "seed", str(plan.seed)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
