"""Run a suite of runs, each once, and compare the tuned models with their bases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options

if TYPE_CHECKING:
    from peftselect.suite import Outcome


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
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="How many runs go on at once on this machine.")  # fmt: skip
@click.option("--ray", metavar="ADDRESS", help="Run on this Ray cluster (auto, or HOST:PORT of its head).")
@click.option("--card", "card_gib", type=click.FloatRange(min=0, min_open=True), metavar="GIB",
              help="Memory of the cluster's cards, where it cannot be read.")  # fmt: skip
@click.option("--retry", is_flag=True, help="Try again what failed, diverged or ran out of memory.")
@click.option("--dry-run", is_flag=True, help="Show the runs and stop.")
@options.json_option
def run(
    suite: str,
    replacements: dict[str, str],
    output: Path | None,
    processes: int,
    ray: str | None,
    card_gib: float | None,
    retry: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run SUITE (a name of `benchmark list`, or a TOML file); what is recorded already is not run again.

    Interrupted runs go on where they were. Exit code 1: some runs have no score.
    """
    from peftselect.cli import console
    from peftselect.suite import differences, failures, load_suite, run_suite

    loaded = load_suite(suite, {name: _typed(value) for name, value in replacements.items()})
    if dry_run:
        if as_json:
            console.print_json([{"key": item.key, **item.arguments} for item in loaded.runs])
        else:
            console.table(loaded.about, ["run", "arguments"], [(r.key, _brief(r.arguments)) for r in loaded.runs])
        return 0
    told = {key: _brief(found) for key, found in differences(loaded).items()}
    with console.RunTable(loaded.name, len(loaded.runs)) as table:

        def report(outcome: Outcome) -> None:
            if outcome.status == "running":
                table.began(outcome.run.key, told[outcome.run.key], outcome.placed)
            else:
                table.ended(outcome.run.key, told[outcome.run.key], outcome.status, _score(outcome), outcome.because)

        outcomes = run_suite(
            loaded, output or Path("peftselect-output") / loaded.name,
            processes=processes, ray=ray, card_gib=card_gib, retry=retry, report=report,
        )  # fmt: skip
    if as_json:
        console.print_json([
            {"key": o.run.key, "status": o.status, "because": o.because, "record": o.record and o.record.to_json()}
            for o in outcomes
        ])  # fmt: skip
    else:
        _show(outcomes)
    failed = failures(outcomes)
    if any(outcome.status.endswith(" before") for outcome in failed):
        console.note("what failed before is not tried again without --retry")
    return 1 if failed else 0


def _score(outcome: Outcome) -> str:
    record = outcome.record
    if record is None or record.metric is None or record.metric not in record.scores:
        return ""
    return f"{record.metric} {record.scores[record.metric].value:.4g}"


def _show(outcomes: list[Outcome]) -> None:
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
