"""Send a run to a hub, with its card; or show what would be sent."""

from __future__ import annotations

import click

from peftselect.cli import options
from peftselect.words import size


@click.command()
@click.argument("folder", metavar="DIR")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--dry-run", is_flag=True, help="Show what would be sent; nothing leaves this machine.")
@click.option("--public", is_flag=True, help="Make a new repository public.  [default: private]")
@click.option("--with-predictions", is_flag=True, help="Send the predictions too: they hold the rows scored on.")
@options.json_option
def push(folder: str, repository: str, dry_run: bool, public: bool, with_predictions: bool, as_json: bool) -> None:
    """Send the adapter in DIR with its model card and record to OWNER/NAME on the Hugging Face hub.

    \b
    peftselect push example me/summarizer --dry-run
    """
    from peftselect.cli import console
    from peftselect.serving import pushing

    upload = pushing.prepare(folder, repository, with_predictions=with_predictions)
    where = "" if dry_run else pushing.push(upload, private=not public)
    if as_json:
        console.print_json({**upload.to_json(), "sent_to": where or None})
        return
    heading = f"Sent to {where}" if where else f"Would be sent to {repository}"
    rows = [(name, size(number)) for name, number in upload.files.items()]
    console.table(heading, ("file", "size"), rows, right=("size",))
    if upload.kept_back:
        console.say(f"Kept back: {', '.join(upload.kept_back)} (they hold your rows; --with-predictions)", style="dim")
    for text in upload.warnings:
        console.say(f"Note: {text}", style="dim")
