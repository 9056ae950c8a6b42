"""List and filter the run records that advice rests on, or show one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.errors import InputError

if TYPE_CHECKING:
    from peftselect.record import RunRecord

DEFAULT_LIMIT = 20


@click.command()
@click.argument("action", required=False, metavar="[show]")
@click.argument("record_id", required=False, metavar="[ID]")
@click.option("--task", default="", metavar="NAME", help="Only records of this task.")
@click.option("--dataset", default="", metavar="NAME", help="Only records on this data set.")
@click.option("--method", default="", metavar="NAME", help="Only records of this method.")
@click.option("--model", default="", metavar="NAME", help="Only records of this base model.")
@click.option("--source", default="", metavar="TEXT", help="Only records whose source contains this.")
@click.option("--metric", default="", metavar="NAME", help="Only records with this metric.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=DEFAULT_LIMIT, show_default=True, help="Rows to show; 0 for all."
)
@options.json_option
def results(
    action: str | None, record_id: str | None, metric: str, source: str, limit: int, as_json: bool, **wanted: str
) -> None:
    """List the records, shipped and your own; `results show ID` shows one in full.

    Your own lie in PEFTSELECT_RESULTS (a folder or an fsspec URL), else in your data folder.
    """
    from peftselect import results as store
    from peftselect.plugin_manager import host

    if action not in (None, "show") or (action == "show") != (record_id is not None):
        raise InputError("`results` takes nothing, or `show ID`", "`peftselect results` lists the records")
    broken: list[str] = []
    records = [*store.user_store().read(broken), *store.shipped_records(host())]
    _complain(broken)
    if record_id is not None:
        _show(store.find(records, record_id), as_json)
        return
    found = store.select(records, metric=metric, source=source, **wanted)
    _list(found, metric, limit, as_json)


def _complain(broken: list[str]) -> None:
    from peftselect.cli import console

    for line in broken:
        console.note(f"left out: {line}")


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
