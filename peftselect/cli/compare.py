"""Put finished runs side by side: settings, scores, costs."""

from __future__ import annotations

from typing import Any

import click

from peftselect.cli import options


@click.command()
@click.argument("folders", metavar="DIR DIR...", nargs=-1, required=True)
@options.json_option
def compare(folders: tuple[str, ...], as_json: bool) -> None:
    """Compare finished runs of one task: what differs in their settings, their scores, what they cost.

    \b
    peftselect compare lora-run ia3-run

    Where they were scored on the same rows, the difference to the first has a 95 % interval (paired bootstrap).
    """
    from peftselect.cli import console
    from peftselect.serving.comparing import compare as put_side_by_side
    from peftselect.serving.comparing import read_run

    found = put_side_by_side([read_run(folder) for folder in folders])
    if as_json:
        console.print_json(found.to_json())
        return
    parts: list[tuple[str, dict[str, list[Any]]]] = [("Scores", dict(found.scores))]
    parts += [("What differs", found.differing), ("Costs", found.costs)]
    for title, columns in parts:
        if columns:
            rows = [(name, *map(_text, values)) for name, values in columns.items()]
            console.table(title, ("", *found.names), rows, right=found.names)
    for name, item in zip(found.names, found.differences, strict=True):
        if item is not None and item.low is not None and item.high is not None:
            chance = "may be chance" if item.low <= 0 <= item.high else "more than chance"
            interval = f"{item.value:+.4f} ({item.low:+.4f} to {item.high:+.4f})"
            console.say(f"{name} against {found.names[0]}: {found.metric} {interval}, {chance}")
    for note in found.notes:
        console.say(f"Note: {note}", style="dim")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
