"""List, show, plot, import and export the run records that advice rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.results_plot import AXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftselect.record import RunRecord

DEFAULT_LIMIT = 20
_FILTERS = (
    click.option("--task", default="", metavar="NAME", help="Only records of this task."),
    click.option("--dataset", default="", metavar="NAME", help="Only records on this data set."),
    click.option("--method", default="", metavar="NAME", help="Only records of this method."),
    click.option("--model", default="", metavar="NAME", help="Only records of this base model."),
    click.option("--source", default="", metavar="TEXT", help="Only records whose source contains this."),
    click.option("--metric", default="", metavar="NAME", help="Only records with this metric."),
)


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose among records."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def listing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a list of records."""
    limit = click.option(
        "--limit", type=click.IntRange(min=0), default=DEFAULT_LIMIT, show_default=True, help="Rows to show; 0 for all."
    )
    return filters(limit(options.json_option(command)))


@click.group(invoke_without_command=True)
@listing
@click.pass_context
def results(context: click.Context, /, limit: int, as_json: bool, **wanted: str) -> None:
    """The records, shipped and your own: list them (as the bare command does), or one of the commands below.

    Your own lie in PEFTSELECT_RESULTS (a folder or an fsspec URL), else in your data folder.
    """
    if context.invoked_subcommand is None:
        _list(_chosen(wanted), wanted["metric"], limit, as_json)
    elif any(wanted.values()) or as_json:
        raise click.UsageError(f"options come after {context.invoked_subcommand}", context)


@results.command("list")
@listing
def list_records(limit: int, as_json: bool, **wanted: str) -> None:
    """List the records, shipped and your own."""
    _list(_chosen(wanted), wanted["metric"], limit, as_json)


@results.command("show")
@click.argument("record_id", metavar="ID")
@options.json_option
def show_record(record_id: str, as_json: bool) -> None:
    """Show one record in full; the first digits of its ID are enough."""
    from peftselect.results import find

    _show(find(_records(), record_id), as_json)


@results.command("import")
@click.argument("place", type=click.Path(path_type=Path), metavar="FILE|DIR")
@click.option("--allow-unknown", is_flag=True, help="Take methods and metrics that nothing here knows.")
@click.option("--skip-broken", is_flag=True, help="Leave out what is wrong, and import the rest.")
@options.json_option
def import_records(place: Path, allow_unknown: bool, skip_broken: bool, as_json: bool) -> None:
    """Add results from elsewhere to your own records; what is there already is not added again.

    \b
    a long table (CSV, one number a row): table, model, dataset, method, metric, value, ...
    the PEFT project's results: its JSON files, or a folder of them
    finished runs: run.json, a run's folder, or a folder of runs
    records as `results export` writes them (.jsonl, .csv)

    All is read first. Where something is wrong nothing is stored, unless --skip-broken.
    """
    from peftselect import importing
    from peftselect.cli import console
    from peftselect.plugin_manager import host
    from peftselect.results import shipped_records, user_store

    found = importing.read(place, allow_unknown=allow_unknown)
    store = user_store()
    done = importing.store_all(found, store, shipped_records(host()), skip_broken=skip_broken)
    for error in found.broken:
        console.note(f"left out: {error.message}")
    for file in found.aside:
        console.note(f"passed over: {file} (no results in it)")
    if found.foreign:
        console.note(f"taken, though not known here: {'; '.join(sorted(found.foreign))}")
    if as_json:
        broken = [error.message for error in found.broken]
        known = {"store": store.url, "imported": list(done.new), "known": done.known, "broken": broken}
        console.print_json({"schema": 1, **known, "passed_over": found.aside})
    else:
        there = f"; {done.known} were known already" if done.known else ""
        console.command(f"{len(done.new)} records imported into {store.url}{there}.")


@results.command("export")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.jsonl|.csv")
@filters
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
def export_records(file: Path, overwrite: bool, **wanted: str) -> None:
    """Write records to a file: all of each as JSON lines, or a long table with one number a row."""
    from peftselect.cli import console
    from peftselect.importing.exporting import export

    chosen = _chosen(wanted)
    written = export(chosen, file, overwrite=overwrite)
    left = len(chosen) - len(written)
    console.say(f"{len(written)} records written to {file}" + (f"; {left} without a number left out." if left else "."))


@results.command("plot")
@filters
@click.option("--x", type=click.Choice(list(AXES)), default="memory", show_default=True, help="The horizontal axis.")
@click.option("--y", type=click.Choice(list(AXES)), default="score", show_default=True, help="The vertical axis.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.svg|.png", help="Also write a picture.")
@options.json_option
def plot_records(x: str, y: str, output: Path | None, as_json: bool, **wanted: str) -> None:
    """Draw runs on two axes, and name those that no other beats on both (the Pareto front).

    Of several comparisons among the records (source, task, data set, model, regime, metric) the largest is drawn.
    """
    from peftselect.cli import _plot, console
    from peftselect.results_plot import make_plot

    if output is not None:
        _plot.check_picture(output)
    plot = make_plot(_chosen(wanted), x, y, wanted["metric"])
    if as_json:
        console.print_json(plot.to_json())
    else:
        _plot.show(plot)
    if output is not None:
        _plot.write(plot, output)
        console.note(f"drawn: {output}")


def _records() -> list[RunRecord]:
    """Your own records and the shipped ones; a broken file of yours is told and left out."""
    from peftselect import results as store
    from peftselect.cli import console
    from peftselect.plugin_manager import host

    broken: list[str] = []
    found = [*store.user_store().read(broken), *store.shipped_records(host())]
    for line in broken:
        console.note(f"left out: {line}")
    return found


def _chosen(wanted: dict[str, str]) -> list[RunRecord]:
    """The records that the filters leave; a method or metric that nobody knows is refused."""
    from peftselect.importing.checks import check_names
    from peftselect.results import select

    records = _records()
    check_names(records, wanted["method"], wanted["metric"])
    return select(records, **wanted)


def _list(found: list[RunRecord], metric: str, limit: int, as_json: bool) -> None:
    from peftselect.cli import console

    shown = found[:limit] if limit else found
    if as_json:
        console.print_json({"schema": 1, "total": len(found), "records": [record.to_json() for record in shown]})
        return
    if not found:
        console.say("No record matches.")
        return
    columns = ("id", "task", "data set", "data", "model", "method", "metric", "score", "source")
    rows = [(record.id, *_row(record, metric)) for record in shown]
    more = f" --limit 0 shows all {len(found)}." if len(shown) < len(found) else ""
    caption = f"{len(shown)} of {len(found)} records.{more}"
    console.table("Records", columns, rows, right=("score",), caption=caption, keep=("id", "data", "score"))


def _row(record: RunRecord, metric: str) -> tuple[object, ...]:
    problem, name = record.problem, metric or record.metric or ""
    about = [problem.get(key, "") for key in ("task", "dataset", "regime", "model")]
    value = f"{record.scores[name].value:g}" if name in record.scores else ""
    score = value if record.status == "ok" else record.status
    return (*about, record.candidate["method"], name, score, record.source)


def _show(record: RunRecord, as_json: bool) -> None:
    from peftselect.cli import console

    document = record.to_json()
    if as_json:
        console.print_json(document)
        return
    console.heading(f"Record {record.id}")
    console.facts([(key, _text(value)) for key, value in document.items() if not isinstance(value, dict)])
    for part, value in document.items():
        if isinstance(value, dict):
            console.say()
            console.heading(part)
            console.facts([(name, _text(item)) for name, item in value.items()])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
