"""Hand an adapter to the ecosystem: servers, GGUF, other trainers' configurations."""

from __future__ import annotations

from typing import Any

import click

from peftselect.cli import options
from peftselect.serving.exporting import formats


def _names() -> list[str]:
    return list(formats())


def _check(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from peftselect.errors import UnknownNameError

    if value not in _names():
        raise UnknownNameError("format", value, _names())
    return value


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--to", required=True, metavar="FORMAT", callback=_check, shell_complete=options.complete(_names),
    help=f"{', '.join(formats())}.",
)  # fmt: skip
@click.option("--output", metavar="DIR", help="Where to write files.  [default: here]")
@options.adapter_options
@options.json_option
def export(folder: str, to: str, output: str | None, as_json: bool, **known: Any) -> None:
    """Print the commands (and write the files) by which another tool serves or trains the adapter in DIR.

    \b
    peftselect export run --to vllm
    peftselect export run --to axolotl --output configs
    """
    from peftselect.cli import console
    from peftselect.serving.exporting import export as hand_over
    from peftselect.serving.saved import read_saved

    made = hand_over(read_saved(folder, **known), to, output)
    if as_json:
        document = {"schema": 1, "about": made.about, "commands": list(made.commands), "files": made.files}
        console.print_json(document)
        return
    for name in made.files:
        console.say(f"written: {name}", style="dim")
    for command in made.commands:
        console.command(command)
    console.say(made.about, style="dim")
