"""Ask a trained adapter: texts or rows in, predictions out."""

from __future__ import annotations

from typing import Any

import click

from peftselect.cli import options


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="An input, repeatable.  [default: lines of stdin]")
@click.option("--data", metavar="FILE", help="A file of inputs, in any form that --train takes.")
@options.columns_option
@options.adapter_options
@click.option("--limit", type=int, metavar="N", help="At most N rows of --data.")
@click.option("--output", metavar="FILE", help="Write JSON lines there.")
@options.json_option
def predict(
    folder: str, texts: tuple[str, ...], data: str | None, columns: dict[str, str], task: str | None, model: str | None,
    limit: int | None, output: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Predict with the adapter in DIR: one line a row, or with --json and --output one JSON object a row.

    \b
    peftselect predict example --text "anna: lunch at one? ben: yes"
    peftselect predict example --data dialogues.jsonl --output predictions.jsonl
    """
    import json

    from peftselect.cli import console
    from peftselect.errors import InputError
    from peftselect.plugin_manager import host
    from peftselect.serving import inputs
    from peftselect.serving.saved import read_saved

    saved = read_saved(folder, task=task, model=model)
    kind = host().task(saved.task)
    if data is not None:
        rows = inputs.rows_from_file(data, kind, columns, limit)
    else:
        rows = inputs.rows_from_texts(texts or inputs.texts_from_pipe(), kind)
    if not rows:
        raise InputError("there is nothing to predict", "give --text, --data, or lines on standard input")
    with console.waiting(f"loading {saved.model}", quiet=as_json):
        from peftselect.serving.loaded import load

        loaded = load(saved)
    found: list[Any] = loaded.predict(rows)
    lines = [
        json.dumps({**row, "prediction": answer}, ensure_ascii=False) for row, answer in zip(rows, found, strict=True)
    ]
    if output is not None:
        _write(output, lines)
    elif as_json:
        console.command("\n".join(lines))
    else:
        console.command("\n".join(_plain(answer) for answer in found))


def _plain(answer: Any) -> str:
    return " ".join(map(str, answer)) if isinstance(answer, list) else str(answer).replace("\n", " ")


def _write(output: str, lines: list[str]) -> None:
    from pathlib import Path

    from peftselect.errors import InputError

    try:
        Path(output).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror})", "give another --output") from error
