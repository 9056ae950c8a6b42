"""Train with the recommended method (or a given one), score before and after, and write the adapter."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.words import count, size, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.training.job import RunResult
    from peftselect.training.plan import RunPlan

#: reasons shown for a method that was recommended
FEW_REASONS = 2


@click.command()
@options.question
@click.option("--eval", "evaluation", metavar="FILE", help="Validation data.  [default: a tenth of --train]")
@click.option("--test", metavar="FILE", help="Test data, for the scores.  [default: the validation data]")
@click.option("--method", shell_complete=options.complete(options.method_names), help="Method.  [default: recommended]")
@options.set_option
@click.option("--before", multiple=True, metavar="STAGE", help="Do this to the base first: NAME:setting=value,...")
@click.option("--after", multiple=True, metavar="STAGE", help="Do this to the trained model, its adapter merged.")
@click.option("--output", metavar="DIR", help="Folder to write.  [default: peftselect-output/TASK-METHOD-N]")
@click.option("--overwrite", is_flag=True, help="Replace the run that --output holds.")
@click.option("--allow-overlap", is_flag=True, help="Train even if rows to be scored on are in the training data.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="The same seed gives the same run.")
@click.option("--max-steps", type=int, metavar="N", help="Stop after N optimizer steps.")
@click.option("--limit", type=int, metavar="N", help="Use at most N rows of each file, drawn by the seed.")
@click.option("--test-limit", type=int, metavar="N", help="Use at most N test rows.  [default: --limit]")
@click.option("--template", metavar="TEXT", help="Prompt in place of the task's own; {source} stands for the input.")
@click.option("--checkpoint-every", metavar="TIME", help="How often to save what --resume goes on from.  [default: 5m]")
@click.option("--probe", metavar="BUDGET", help="First try the best candidates for so long: 5m, or 60steps in all.")
@click.option("--report-to", metavar="NAME,NAME", help="Tell tensorboard, wandb or mlflow of losses and scores.")
@click.option("--no-degrade", is_flag=True, help="Stop where memory runs out; do not try a cheaper recipe.")
@click.option("--resume", metavar="DIR", help="Go on with the interrupted run towards DIR; nothing else is needed.")
@click.option("--dry-run", is_flag=True, help="Show the recipe and its price, check the data, and stop.")
@options.json_option
def run(method: str | None, dry_run: bool, as_json: bool, **arguments: Any) -> None:
    """Fine-tune: recommend (unless --method), train, score before and after, write the adapter.

    \b
    peftselect run
    peftselect run --task classification --model ./my-roberta --train train.jsonl --test test.jsonl
    peftselect run --task summarization --train train.jsonl --method ia3 --set learning_rate=3e-3 --dry-run
    peftselect run --before prune:sparsity=0.5 --method lora --after quantize:bits=8

    Without arguments it runs the embedded example: a small model, offline, in about a minute.

    --probe trains the best candidates for a while on your data and goes on with the one that scores best.

    Ctrl-C saves and stops; `peftselect run --resume DIR` goes on with the run whose --output was DIR.

    --set takes a method's hyperparameters and the fields of the recipe (num_train_epochs, micro_batch_size, ...).
    """
    from peftselect import api
    from peftselect.cli import console
    from peftselect.training import ranks
    from peftselect.training.start import start

    task, model, resume = (arguments.pop(name) for name in ("task", "model", "resume"))
    degrade = not arguments.pop("no_degrade")
    reports = tuple(filter(None, (arguments.pop("report_to") or "").split(",")))
    if resume is not None:
        plan = api.plan_resumed(resume)
    else:
        plan = api.plan_run(
            task, model, method=method, degrade=degrade, report_to=reports, **options.as_arguments(arguments)
        )
    if not ranks.is_first():
        if not dry_run:
            start(plan)
        return
    if dry_run:
        if as_json:
            console.print_json(plan.to_json())
        else:
            _show_plan(plan)
        return
    if not as_json:
        _show_plan(plan)
        console.say()
    result = _train(plan, silent=as_json)
    if as_json:
        console.print_json(result.record.to_json())
    else:
        _show_result(plan, result)


def _train(plan: RunPlan, silent: bool) -> RunResult:
    from peftselect.cli import console
    from peftselect.training.start import start
    from peftselect.training.unfinished import is_probing, newest, work_folder

    try:
        with console.Stages() as stages:
            return start(plan, None if silent else stages)
    except KeyboardInterrupt:
        saved = newest(work_folder(plan.output))
        if saved is None:
            probing = is_probing(work_folder(plan.output))
            told = "in the probe, which is saved. To go on:" if probing else f"nothing was written to {plan.output}"
            console.note(f"interrupted: {told}")
        else:
            probing = True
            console.note(f"interrupted; step {saved.step:,} of {saved.total:,} is saved. To go on:")
        if probing:
            console.note(f"peftselect run --resume {shlex.quote(str(plan.output))}")
        raise


def _show_plan(plan: RunPlan) -> None:
    from peftselect.cli import console

    problem, chosen = plan.problem, plan.chosen
    recipe, values = chosen.candidate.recipe, dict(chosen.candidate.values)
    values.pop("learning_rate", None)
    splits, method = plan.splits, chosen.candidate.method
    scored = "" if splits.test_is_validation else f", {len(splits.test):,} to score on"
    batch = f"micro-batch {recipe.micro_batch_size}" + (
        f" x {recipe.gradient_accumulation_steps} accumulated" if recipe.gradient_accumulation_steps > 1 else ""
    )
    settings = [f"{name}={_text(value)}" for name, value in values.items() if value is not None]
    parts = [f"learning rate {recipe.learning_rate:.3g}", _epochs(recipe.num_train_epochs), batch]
    parts = [] if method.kind == "baseline" else parts
    parts += [recipe.precision, f"inputs up to {recipe.max_length} tokens"]
    parts += ["gradient checkpointing"] * recipe.gradient_checkpointing
    parts += [f"base held in {recipe.quantization}"] * (recipe.quantization is not None)
    console.heading(f"{problem.task.title} with {problem.model.name} by {method.title}")
    percent = 100 * chosen.trainable_parameters / chosen.total_parameters
    facts = [
        (
            "data",
            f"{plan.dataset}: {len(splits.train):,} rows to train, {len(splits.validation):,} to validate{scored}",
        ),
        *(("", line) for line in plan.report.lines()),
        ("settings", ", ".join(settings) or "none"),
        ("recipe", ", ".join(parts)),
        ("trains", f"{count(chosen.trainable_parameters)} ({percent:.2g} %) of {count(chosen.total_parameters)}"),
        ("memory", f"{size(chosen.memory.device_bytes)} on a GPU (± {chosen.memory.error_band_percent:.0f} %)"),
    ]
    if seconds := chosen.train_seconds:
        facts.append(("time", f"about {span(seconds.value)} ({span(seconds.low)} to {span(seconds.high)})"))
    if plan.recommended:
        whys = [f"{reason.text} [{reason.source}]" for reason in chosen.reasons if reason.kind == "for"][:FEW_REASONS]
        facts += [("" if number else "why", text) for number, text in enumerate(whys)]
    facts += [("" if number else "probe", text) for number, text in enumerate(_probe_lines(plan))]
    facts += [(f"{item.place} it", f"{item.stage.title.lower()} ({item})") for item in plan.stages]
    facts.append(("output", str(plan.output)))
    console.facts(facts)
    for text in plan.notes:
        console.say(f"Note: {text}", style="dim")


def _probe_lines(plan: RunPlan) -> list[str]:
    """What a probe will do and take, or where an interrupted one has come to."""
    from peftselect.training.probe import price, title

    probe = plan.probe
    if probe is None:
        return []
    if probe.outcome.finished:
        return ["is done"]
    names = ", ".join(title(arm) for arm in probe.arms)
    steps, seconds = price(plan)
    if steps is None:
        rounds = ", then ".join(str(number) for number, _ in probe.planned_steps())
        return [names, f"at most {span(seconds or 0.0)} in all: {rounds} of them, the better half each time"]
    rounds = ", then ".join(f"{number} for {one} steps each" for number, one in probe.planned_steps())
    about = f", about {span(seconds)}" if seconds else ""
    return [names, f"{steps:,} steps in all{about}: {rounds}; the winner's count for the run"]


def _show_probe(plan: RunPlan, document: Mapping[str, Any]) -> None:
    """Every candidate's score at the end of its rounds."""
    from peftselect.cli import console

    rounds = document["rounds"]
    columns = ("candidate", *(f"round {number}" for number in range(1, len(rounds) + 1)))
    rows = []
    for arm, candidate in enumerate(document["candidates"]):
        cells = [_cell(row, arm) for row in rounds]
        mark = " (goes on)" if candidate == document["winner"] else ""
        rows.append((f"{candidate['method']} at {candidate['learning_rate']:.3g}{mark}", *cells))
    about = f"{plan.problem.task.metric} on the validation rows after so many steps; {document['extra_steps']:,} of "
    about += f"{document['steps']:,} steps were the losers', {span(document['seconds'])} in all."
    console.table("The probe", columns, rows, right=columns[1:], caption=about)


def _cell(row: Sequence[Mapping[str, Any]], arm: int) -> str:
    tried = next((item for item in row if item["arm"] == arm), None)
    if tried is None:
        return ""
    score = tried["status"] if tried["score"] is None else f"{tried['score']:.4f}"
    return f"{score} ({tried['step']})"


def _show_result(plan: RunPlan, result: RunResult) -> None:
    from peftselect.cli import console
    from peftselect.training.model_card import comparison, score_rows, untrained_head, where_scored

    record = result.record
    about = " ".join(filter(None, (f"On {where_scored(plan)}.", untrained_head(plan))))
    if probe := record.measured.get("probe"):
        console.say()
        _show_probe(plan, probe)
    console.say()
    columns: tuple[str, ...] = ("metric", "base model", "tuned", "points")
    console.table("Before and after", columns, score_rows(record), right=columns[1:], caption=about)
    console.say()
    columns = ("of the run", "predicted", "measured")
    console.table("Predicted and measured", columns, comparison(plan, record), right=columns[1:])
    if record.measured.get("stopped_early"):
        console.say(f"Stopped early: the best state was that of step {record.measured['best_step']:,}.", style="dim")
    for text in result.notes[len(plan.notes) :]:
        console.say(f"Note: {text}", style="dim")
    console.say()
    if plan.leaves == "nothing":
        console.command(f"Scores and predictions lie in {result.output}. To load the base model:")
    else:
        console.command(f"The {plan.leaves} lies in {result.output}. To load it:")
    console.say()
    console.command(result.snippet)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _epochs(number: float) -> str:
    return "1 epoch" if number == 1 else f"{number:g} epochs"
