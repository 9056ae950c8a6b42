"""Score trained adapters on a data set: intervals, comparisons, groups, what was forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options

if TYPE_CHECKING:
    from peftselect.serving.evaluating import Evaluation


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--data", metavar="FILE", required=True, help="Rows with answers.")
@options.columns_option
@click.option("--base", is_flag=True, help="Score the base model of the first DIR too.")
@click.option("--group-by", metavar="COLUMN", help="Score each group of rows by itself, and the gap between them.")
@click.option("--forgetting", metavar="FILE", help="A second set, to compare with the base model on.")
@click.option("--limit", type=int, metavar="N", help="Only the first N rows of each file.")
@options.adapter_options
@options.json_option
def evaluate(
    folders: tuple[str, ...], base: bool, task: str | None, model: str | None, as_json: bool, **sets: Any
) -> None:
    """Score the adapters in DIR... on the same rows, with 95 % bootstrap intervals.

    \b
    peftselect evaluate lora-run ia3-run --data test.jsonl --base
    peftselect evaluate run --data test.jsonl --group-by dialect --forgetting old-test.jsonl

    Several are compared with the first: a difference whose interval holds 0 may be chance.
    """
    from peftselect.cli import console
    from peftselect.serving.saved import read_saved

    saved = [read_saved(folder, task=task, model=model) for folder in folders]
    with console.waiting(f"scoring on {sets['data']}", quiet=as_json):
        from peftselect.serving.evaluating import Sets
        from peftselect.serving.evaluating import evaluate as score

        found = score(saved, Sets(**sets), base=base)
    if as_json:
        console.print_json(found.to_json())
    else:
        _show(found)


def _show(found: Evaluation) -> None:
    from peftselect.cli import console

    names = list(found.scores)
    caption = f"{found.rows:,} rows; 95 % intervals from {found.draws:,} bootstrap draws" if found.draws else ""
    metrics = list(next(iter(found.scores.values())))
    rows = [(metric, *(_text(found.scores[name][metric]) for name in names)) for metric in metrics]
    console.table("Scores", ("metric", *names), rows, right=names, caption=caption)
    if found.differences:
        lines = [(name, _text(item, signed=True), _verdict(item)) for name, item in found.differences.items()]
        console.table(f"Against {names[0]} ({found.metric})", ("", "difference", ""), lines, right=("difference",))
    if found.groups:
        groups = list(next(iter(found.groups.values())))
        by_group = [
            (group, f"{found.groups[names[0]][group][0]:,}", *(_text(found.groups[name][group][1]) for name in names))
            for group in groups
        ]
        by_group.append(("best - worst", "", *(f"{found.gaps[name]:.4f}" for name in names)))
        console.table(f"By group ({found.metric})", ("group", "rows", *names), by_group, right=("rows", *names))
    if found.forgotten:
        lines = [(name, _text(item, signed=True), _verdict(item)) for name, item in found.forgotten.items()]
        columns = ("", "change", "")
        console.table(f"On the second set, against the base model ({found.metric})", columns, lines, right=("change",))


def _text(interval: Any, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value = format(interval.value, f"{sign}.4f")
    if interval.low is None:
        return value
    return f"{value} ({format(interval.low, f'{sign}.4f')} to {format(interval.high, f'{sign}.4f')})"


def _verdict(interval: Any) -> str:
    if interval.low is None:
        return ""
    return "may be chance" if interval.low <= 0 <= interval.high else "more than chance"
