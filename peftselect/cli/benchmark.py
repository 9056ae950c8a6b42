"""Run a suite of runs, each once, and compare the tuned models with their bases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options

if TYPE_CHECKING:
    from peftselect.record import RunRecord


@click.group()
def benchmark() -> None:
    """Run suites of fine-tuning runs, resuming where they stopped."""


@benchmark.command("list")
def list_suites() -> None:
    """Name the suites that ship."""
    from peftselect.cli import console
    from peftselect.suite import shipped_suites

    console.facts(shipped_suites().items())


@benchmark.command("run")
@click.argument("suite")
@click.option("--replace", "replacements", multiple=True, callback=options.pairs, metavar="NAME=VALUE",
              help="Override an argument of every run, for example model=./my-model.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=None, metavar="DIR",
              help="Where the runs are written.  [default: ./peftselect-output/SUITE]")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the runs and stop.")
@options.json_option
def run(suite: str, replacements: dict[str, str], output: Path | None, dry_run: bool, as_json: bool) -> int:
    """Run SUITE (a name of `benchmark list`, or a TOML file); what is recorded already is not run again."""
    from peftselect.cli import console
    from peftselect.suite import load_suite, run_suite

    loaded = load_suite(suite, {name: _typed(value) for name, value in replacements.items()})
    if dry_run:
        if as_json:
            console.print_json([{"key": item.key, **item.arguments} for item in loaded.runs])
        else:
            console.table(loaded.about, ["run", "arguments"], [(r.key, _brief(r.arguments)) for r in loaded.runs])
        return 0
    from peftselect import run as train

    def report(number: int, total: int, outcome: Any) -> None:
        tail = f": {outcome.because}" if outcome.because else ""
        console.note(f"{number}/{total} {outcome.run.key} {outcome.status}{tail}")

    def record(**arguments: Any) -> RunRecord:
        return train(**arguments).record

    outcomes = run_suite(loaded, record, output or Path("peftselect-output") / loaded.name, report=report)
    if as_json:
        console.print_json([
            {"key": o.run.key, "status": o.status, "because": o.because, "record": o.record and o.record.to_json()}
            for o in outcomes
        ])  # fmt: skip
    else:
        _show(outcomes)
    return 1 if any(outcome.status not in ("ok", "recorded before") for outcome in outcomes) else 0


def _show(outcomes: list[Any]) -> None:
    """The gain of each tuned model over its base, in points of every metric (thesis 4.4)."""
    from peftselect.cli import console
    from peftselect.suite import gains

    for item, pairs in gains(outcomes):
        rows = [
            (name, f"{100 * before:.2f}", f"{100 * after:.2f}", f"{100 * (after - before):+.2f}")
            for name, (before, after) in pairs.items()
        ]
        title = f"run {item.key} (percent; gain in points)"
        console.table(title, ["metric", "base", "tuned", "gain"], rows, right=["base", "tuned", "gain"])


def _typed(value: str) -> Any:
    """A number where it reads as one, else the text."""
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value


def _brief(arguments: Any) -> str:
    return " ".join(f"{name}={str(value)[:40]!r}" for name, value in arguments.items() if name != "template")
