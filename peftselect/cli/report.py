"""Write a run as one HTML page: scores, reasons, curves, samples, settings."""

from __future__ import annotations

import click

from peftselect.cli import options


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--output", metavar="FILE", help="Where to write it.  [default: DIR/report.html]")
@options.json_option
def report(folder: str, output: str | None, as_json: bool) -> None:
    """Write the run in DIR as a page that opens offline, in any browser, on any screen.

    \b
    peftselect report example
    """
    from peftselect.cli import console
    from peftselect.serving.report import report as write

    page = write(folder, output)
    if as_json:
        console.print_json({"schema": 1, "page": str(page)})
    else:
        console.say(f"The page is {page}.")
