"""Compare what comes in now with what a run was scored on, and say when to retrain."""

from __future__ import annotations

import click

from peftselect.cli import options


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--data", metavar="FILE", required=True, help="Rows of now; with answers the score is compared too.")
@options.columns_option
@options.adapter_options
@options.json_option
def monitor(
    folder: str, data: str, columns: dict[str, str], task: str | None, model: str | None, as_json: bool
) -> None:
    """Hold new rows against the run in DIR: their lengths and words, the labels predicted, the score.

    \b
    peftselect serve run --log-requests asked.jsonl
    peftselect monitor run --data asked.jsonl

    The verdict is fine, look (inputs or predictions have changed) or retrain (the score is worse beyond chance).
    """
    from peftselect.cli import console
    from peftselect.serving.monitoring import monitor as hold_against
    from peftselect.serving.saved import read_saved

    saved = read_saved(folder, task=task, model=model)
    with console.waiting(f"comparing {data}", quiet=as_json):
        found = hold_against(saved, data, columns)
    if as_json:
        console.print_json(found.to_json())
        return
    console.heading(f"{found.verdict}: {found.because}")
    rows = [
        (check.name, check.text, "-" if check.p_value is None else f"{check.p_value:.2g}", "changed" * check.changed)
        for check in found.checks
    ]
    console.table(
        "", ("", f"{found.rows:,} rows against those of the run", "by chance", ""), rows, right=("by chance",)
    )
