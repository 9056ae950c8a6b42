"""Say which method to use, with its whole recipe, what it costs, why, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.words import count, size, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.problem import Problem
    from peftselect.selector import RankedCandidate, Reason, Recommendation, Trace, Tradeoffs

NOTHING_FITS = 3
#: reasons shown without --explain
FEW_REASONS = 3
FEW_SOURCES = 2
_BASES = {"rules": "rules", "records": "records", "both": "rules and records", "abstained": "nothing known"}


@click.command()
@options.question
@options.set_option
@click.option("--method", shell_complete=options.complete(options.method_names), help="Ask about one method only.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Show at most N candidates.")
@click.option("--explain", is_flag=True, help="Show the full reasoning for every candidate.")
@click.option("--pareto", is_flag=True, help="Show what no other candidate beats in quality, memory, time and size.")
@click.option("--export", metavar="FILE", help="Write the recipe as a script (tasks that run does not train).")
@click.option("--trace", "trace", flag_value="always", help="Trace the recommended candidate's memory, whatever.")
@click.option("--no-trace", "trace", flag_value="never", help="Never trace: the closed form alone, without torch.")
@options.json_option
def recommend(
    task: str | None,
    model: str | None,
    method: str | None,
    settings: dict[str, str],
    top: int | None,
    explain: bool,
    pareto: bool,
    export: str | None,
    as_json: bool,
    trace: Trace | None,
    **question: Any,
) -> int:
    """Recommend a fine-tuning method and its whole recipe for a task, a base model and a budget.

    \b
    peftselect recommend --task summarization --vram 4
    peftselect recommend --task classification --model ./my-roberta --vram 8 --train data.jsonl
    peftselect recommend --task qa --vram 8 --must merge --max-time 2h --explain

    The last line is the command that trains what is recommended. Exit code 3: nothing fits.
    """
    from peftselect import api
    from peftselect.cli import console

    arguments = options.as_arguments(question)
    asked = options.need_task(task)
    with console.waiting("looking at what fits", quiet=as_json or not console.is_terminal()):
        answer = api.recommend(asked, model, method=method, settings=settings, trace=trace or "auto", **arguments)
    front = api.tradeoffs(answer, method, settings) if pareto else None
    if as_json:
        shown = answer.to_json(top)
        console.print_json({**shown, "pareto": front.to_json()} if front else shown)
    else:
        _show(answer, top, explain, question.get("train"), front)
    if export is not None:
        written = api.export(answer, export, question.get("train"))
        console.note(f"{export} trains {written}")
    return 0 if answer.recommended else NOTHING_FITS


def _show(answer: Recommendation, top: int | None, explain: bool, train: object, front: Tradeoffs | None) -> None:
    from peftselect.cli import _front, console
    from peftselect.selector.scoring import UTILITY

    console.heading(_question(answer.problem))
    console.say(_setting(answer.problem), style="dim")
    console.say()
    first = answer.recommended
    if first is None:
        console.say("Nothing fits. The cheapest ways out are below.", style="bold red")
    else:
        console.heading(f"Recommended: {first.candidate.method.title} ({first.method})")
        console.facts(_facts(first, answer, explain))
    console.say()
    if answer.candidates:
        _table(answer, top)
    if front is not None:
        _front.show(front)
    if explain:
        for item in answer.candidates[1:top]:
            console.heading(f"{item.rank}. {item.candidate.method.title} ({item.method})")
            console.facts(_facts(item, answer, explain))
            console.say()
    if answer.excluded:
        _excluded(answer, explain)
    if explain:
        console.say(f"Utility, by which ties are decided: {UTILITY}.", style="dim")
    for text in answer.notes:
        console.say(f"Note: {text}", style="dim")
    if first is not None and not answer.problem.task.elsewhere:
        console.say()
        console.say("To train it:" if train else "To train it, put your own file in place of TRAIN.jsonl:")
        console.command(first.command)


def _question(problem: Problem) -> str:
    hardware = problem.hardware
    budget = "no memory limit" if hardware.vram_bytes is None else f"{hardware.vram_bytes / 1024**3:.3g} GiB"
    card = f" ({hardware.name})" if hardware.origin == "read from the card" else ""
    several = f" on each of {hardware.devices} devices" if hardware.devices > 1 else ""
    return f"{problem.task.title} with {problem.model.name}, {budget}{card}{several}"


def _setting(problem: Problem) -> str:
    data = problem.data
    parts = [f"{count(problem.shape.total_parameters)} parameters", f"batch {problem.batch_size}"]
    parts.append(f"input up to {problem.max_length} {problem.shape.length_unit}")
    if problem.max_target_length:
        parts.append(f"output up to {problem.max_target_length}")
    examples = "training data not known" if data.num_examples is None else f"{data.num_examples:,} training examples"
    parts.append(f"{examples}{f' ({data.origin})' if data.num_examples else ''}")
    return ", ".join(parts)


def _facts(item: RankedCandidate, answer: Recommendation, explain: bool) -> Iterator[tuple[str, object]]:
    problem = answer.problem
    recipe, values = item.candidate.recipe, dict(item.candidate.values)
    values.pop("learning_rate", None)
    settings = [f"{name}={_text(value)}" for name, value in values.items() if value is not None]
    yield "settings", ", ".join(settings) or "none"
    accumulated = recipe.gradient_accumulation_steps
    batch = f"micro-batch {recipe.micro_batch_size}" + (f" x {accumulated} accumulated" if accumulated > 1 else "")
    parts = [
        f"learning rate {recipe.learning_rate:.3g}",
        f"{recipe.num_train_epochs:g} epoch{'s' * (recipe.num_train_epochs != 1)}",
        recipe.precision,
        batch,
    ]
    parts += ["gradient checkpointing"] * recipe.gradient_checkpointing
    parts += [f"base held in {recipe.quantization}"] * (recipe.quantization is not None)
    yield "recipe", ", ".join(parts)
    yield "memory", _memory(item, problem)
    if explain:
        lines = ", ".join(f"{name.replace('_', ' ')} {size(part)}" for name, part in item.memory.breakdown.items())
        yield "", lines
    percent = 100 * item.trainable_parameters / item.total_parameters
    rank = item.candidate.method.rank(item.candidate.values)
    trained = f"trains {count(item.trainable_parameters)} ({percent:.2g} %) of {count(item.total_parameters)}"
    changed = f"changes {count(item.changed_parameters)}" + (f", rank {rank}" if rank else "")
    yield "parameters", f"{trained}, {changed}"
    yield "adapter", f"{size(item.adapter_bytes)} on disk"
    if seconds := item.train_seconds:
        yield "time", f"about {span(seconds.value)} ({span(seconds.low)} to {span(seconds.high)})"
    else:
        unknown = "the number of examples" if problem.data.num_examples is None else "the device"
        yield "time", f"not known: that takes {unknown}"
    if expected := item.predicted:
        interval = f"80 % interval {expected.low:.2f} to {expected.high:.2f}"
        yield "expected", f"{expected.metric} {expected.value:.2f} ({interval})"
    shown = item.reasons if explain else item.reasons[:FEW_REASONS]
    for number, reason in enumerate(shown):
        mark = {"for": "+ ", "against": "- "}.get(reason.kind, "")
        yield ("" if number else "why"), f"{mark}{reason.text} [{_source(reason)}]"
    if hidden := len(item.reasons) - len(shown):
        yield "", f"({hidden} more with --explain)"
    yield "how sure", f"{_BASES[item.confidence.source]}: {item.confidence.because}"
    if explain:
        yield "score", _score(item, answer)


def _score(item: RankedCandidate, answer: Recommendation) -> str:
    """The utility with its numbers put in."""
    from peftselect.selector import scoring

    prefer, candidates = answer.problem.priorities.prefer, answer.candidates
    parts = [f"quality {item.quality:+.2f}"]
    for charge in scoring.charges(item, scoring.cheapest_costs(candidates), prefer):
        parts.append(f"{charge.cost} {charge.price:g} x log2({charge.ratio:.3g}) = {charge.points:.2f}")
    parts.append(f"risks {scoring.risk_points(item, candidates, prefer):.2f}")
    return f"{item.score:+.2f} points: {' - '.join(parts)}"


def _source(reason: Reason) -> str:
    """Where a reason comes from; many tables are counted, not listed."""
    sources = reason.source.split("; ") if reason.kind == "record" else [reason.source]
    return reason.source if len(sources) <= FEW_SOURCES else f"{len(sources)} sources: peftselect results"


def _memory(item: RankedCandidate, problem: Problem) -> str:
    source = item.memory.source.replace("_", " ")
    need = f"{size(item.memory.device_bytes)} (± {item.memory.error_band_percent:.0f} %, {source})"
    if problem.hardware.vram_bytes is None:
        return f"{need}, no limit given"
    verdict = item.verdict.verdict.replace("_", " ")
    return f"{need} of {size(problem.hardware.vram_bytes)}: {verdict}, {size(item.verdict.margin_bytes or 0)} to spare"


def _table(answer: Recommendation, top: int | None) -> None:
    from peftselect.cli import console

    shown = answer.candidates[:top]
    timed = any(item.train_seconds for item in shown)
    columns = ["#", "method", "memory", "trained", "adapter", *["time"] * timed, "quality", "basis"]
    caption = "quality: expected points against the median method, rules included; a gap parts what is more than noise "
    caption += "apart" + ("; !: borderline fit" if any(item.verdict.verdict != "fits" for item in shown) else "")
    console.table(
        "Candidates",
        columns,
        [_row(item, timed) for item in shown],
        right=("#", "memory", "trained", "adapter", "time", "quality"),
        caption=caption,
        groups=[item.tie_group for item in shown],
        keep=("method", "memory", "trained", "adapter", "time"),
    )


def _row(item: RankedCandidate, timed: bool) -> list[object]:
    time = span(item.train_seconds.value) if item.train_seconds else "?"
    return [
        item.rank,
        item.method,
        size(item.memory.device_bytes) + ("" if item.verdict.verdict == "fits" else " !"),
        count(item.trainable_parameters),
        size(item.adapter_bytes),
        *[time] * timed,
        f"{item.quality:+.1f}",
        "none" if item.confidence.source == "abstained" else item.confidence.source,
    ]


def _excluded(answer: Recommendation, explain: bool) -> None:
    from peftselect.cli import console

    alike: dict[tuple[str, str, str], list[str]] = {}
    unjudged = [item.method for item in answer.excluded if item.constraint == "evidence" and not item.also]
    for item in answer.excluded:
        if item.method in unjudged:
            continue
        because = f"{item.because[:1].upper()}{item.because[1:]}."
        if item.also:
            because += f" Also: {'; '.join(other.because if explain else other.constraint for other in item.also)}."
        alike.setdefault((item.constraint, because, item.cheapest_change or "-"), []).append(item.method)
    rows = [("\n".join(names), *why) for why, names in alike.items()]
    if rows:
        titles = ("method", "fails", "because", "what would admit it")
        console.table("Left out", titles, rows, keep=("method", "fails"))
    if unjudged:
        console.say(
            f"Not judged, since neither the thesis nor a record says how they compare ({len(unjudged)}; --method NAME "
            f"runs one): {', '.join(unjudged)}.",
            style="dim",
        )


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
