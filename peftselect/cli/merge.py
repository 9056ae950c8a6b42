"""Merge an adapter into its base model, and check that it answers the same."""

from __future__ import annotations

import click

from peftselect.cli import options


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--output", metavar="DIR", required=True, help="Folder to write: a whole model, without peft.")
@options.adapter_options
@options.json_option
def merge(folder: str, output: str, task: str | None, model: str | None, as_json: bool) -> None:
    """Merge the adapter in DIR into its base model; nothing is written where the logits would change.

    \b
    peftselect merge example --output merged
    """
    from peftselect.cli import console
    from peftselect.serving.saved import read_saved

    saved = read_saved(folder, task=task, model=model)
    with console.waiting("merging", quiet=as_json):
        from peftselect.serving.merging import merge as put_together

        done = put_together(saved, output)
    if as_json:
        difference = {"largest_difference": done.largest_difference, "share": done.share}
        console.print_json({"schema": 1, "output": str(done.folder), **difference})
    else:
        console.say(f"The merged model lies in {done.folder}.")
        console.say(f"Its logits differ by at most {done.largest_difference:.2g} from the unmerged ones.", style="dim")
