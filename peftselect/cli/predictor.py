"""Refit the predictor with your records, judge it against plain habits, or show its settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from peftselect.cli import options

if TYPE_CHECKING:
    from peftselect.predictor.assessment import Assessment
    from peftselect.record import RunRecord

WAYS = ("table", "data-set", "model", "method")
#: strategies whose regret is shown by family
SHOWN = ("always_lora", "static", "rules", "predictor", "combined")


@click.command()
@click.argument("action", type=click.Choice(["fit", "evaluate", "show"]), metavar="fit|evaluate|show")
@click.option(
    "--held-out",
    type=click.Choice(WAYS),
    default="table",
    show_default=True,
    help="evaluate: what is predicted from all the others.",
)
@click.option(
    "--on",
    type=click.Path(path_type=Path, dir_okay=False),
    help="evaluate: judge on these records instead (a long CSV, one number a row: table, model, dataset, method, ...).",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="evaluate: draw how often intervals of each level hold (.svg or .png).",
)
@options.json_option
def predictor(action: str, held_out: str, on: Path | None, plot: Path | None, as_json: bool) -> None:
    """Learn from records how far methods differ, and say how well that works.

    \b
    fit       choose the settings anew with your records, and keep them in your data folder
    evaluate  regret against the best method of each comparison: the predictor, rules, both, and plain habits;
              the difference to always choosing LoRA; by family of tasks and of metrics; how often intervals hold
    show      the settings in use
    """
    if action == "show":
        _show(as_json)
    elif action == "fit":
        _fit(as_json)
    else:
        _evaluate(held_out.replace("-", " "), on, plot, as_json)


def _records() -> list[RunRecord]:
    from peftselect.plugin_manager import host
    from peftselect.results import shipped_records, user_store

    return [*shipped_records(host()), *user_store().read(broken=[])]


def _show(as_json: bool) -> None:
    from dataclasses import asdict

    from peftselect.cli import console
    from peftselect.predictor.settings import load, user_file

    settings = asdict(load())
    if as_json:
        console.print_json({"schema": 1, **settings})
        return
    console.heading("Settings of the predictor")
    console.facts(settings.items())
    console.say(f"Fitted by you: {user_file()}" if user_file().is_file() else "As shipped.")


def _fit(as_json: bool) -> None:
    from dataclasses import asdict

    from peftselect.cli import console
    from peftselect.plugin_manager import host
    from peftselect.predictor.settings import save, user_file
    from peftselect.selector.evidence import refit

    records = _records()
    with console.waiting("Choosing settings with groups held out", quiet=as_json):
        settings = refit(records, host())
    save(settings, user_file())
    if as_json:
        console.print_json({"schema": 1, "records": len(records), **asdict(settings)})
    else:
        console.say(f"Fitted to {len(records)} records: {user_file()}")


def _evaluate(held_out: str, on: Path | None, plot: Path | None, as_json: bool) -> None:
    from peftselect.cli import _plot, console
    from peftselect.plugin_manager import host
    from peftselect.selector.evidence import evaluate

    if plot is not None:
        _plot.check_picture(plot)
    other = None
    if on is not None:
        from peftselect.importing import read_table

        other = read_table(on)
    with console.waiting("Fitting anew for every group held out", quiet=as_json):
        found = evaluate(_records(), host(), held_out, other)
    if plot is not None:
        _plot.reliability(found.reliability(), f"Intervals, held out by {found.held_out}", plot)
    if as_json:
        console.print_json(found.to_json())
    else:
        _print(found)


def _print(found: Assessment) -> None:
    from peftselect.cli import console

    document = found.to_json()
    rows = [
        (name.replace("_", " "), f"{lost['mean']:.2f}", f"{lost['p90']:.2f}")
        for name, lost in document["regret"].items()
    ]
    caption = f"{document['cells']} comparisons, held out by {found.held_out}; points lost against the best method."
    console.table("Regret", ("strategy", "mean", "p90"), rows, right=("mean", "p90"), caption=caption)
    names = [name.replace("_", " ") for name in SHOWN]
    parts = [
        (part.of, part.name, str(part.cells), *(f"{part.regret[name]:.2f}" for name in SHOWN)) for part in found.parts()
    ]
    console.table("Mean regret by family", ("of", "family", "cells", *names), parts, right=("cells", *names))
    inside = ", ".join(f"{level} %: {100 * share:.0f} %" for level, share in document["coverage"].items())
    console.say(f"Intervals hold: {inside}. Rank correlation {document['spearman']:.2f}.")
    console.say(f"Abstained on {100 * document['abstained']:.0f} % of the comparisons: far from every record.")
    if len({key.source for key in found.judged}) > 1:
        for name, words in (("predictor", "The predictor loses"), ("combined", "Both together lose")):
            gained, low, high = found.gain(by=name)
            interval = f"95 % interval {low:+.2f} to {high:+.2f}, tables resampled"
            console.say(f"{words} {gained:+.2f} points less than always LoRA ({interval}).")
