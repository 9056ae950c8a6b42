"""List the fine-tuning methods and what else the literature names, or say all about one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.words import article

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftselect.method import Method
    from peftselect.plugin_manager import Entry
    from peftselect.shape import ModelShape

#: the model on whose shape defaults are shown unless --model says otherwise
EXAMPLE_MODEL = "flan-t5-base"
#: columns of a terminal from which there is room for what each method can
ROOMY = 100
#: what the kinds are called over their table
OTHERS = {
    "stage": "Stages: before or after a method (run --before, --after)",
    "baseline": "Baselines: scored, not trained",
    "reference": "Named in the literature, not run by themselves",
}


@click.command()
@click.argument("name", required=False, shell_complete=options.complete(options.entry_names))
@click.option(
    "--model",
    default=EXAMPLE_MODEL,
    show_default=True,
    metavar="REF",
    shell_complete=options.complete(options.model_names),
    help="Base model for which defaults and counts are shown.",
)
@click.option("--matrix", is_flag=True, help="Show what each method can, method by method.")
@options.json_option
def methods(name: str | None, model: str, matrix: bool, as_json: bool) -> None:
    """List the methods, or with NAME say all about one: idea, formula, settings, structure, evidence, limits."""
    from peftselect.base_models import resolve_base_model
    from peftselect.cli import console
    from peftselect.method import Method
    from peftselect.plugin_manager import host
    from peftselect.shapes import read_shape, shape_for

    if name is None and as_json:
        from peftselect.catalogue import document

        console.print_json([document(item, host().tasks()) for item in host().entries().values()])
        return
    base = resolve_base_model(model)
    shape = read_shape(base.config)
    if name is None:
        if matrix:
            from peftselect.cli import _matrix

            _matrix.show(list(host().methods().values()))
        else:
            _list(list(host().entries().values()), shape, base.name)
        return
    entry = host().entry(name)
    if isinstance(entry, Method):
        shape = shape_for(entry, base.config)
    if as_json:
        console.print_json({"schema": 1, "model": base.name, **_document(entry, shape)})
    else:
        from peftselect.cli import _card

        _card.show(entry, shape, base.name)


def _list(found: Sequence[Entry], shape: ModelShape, model: str) -> None:
    from peftselect.cli import console
    from peftselect.method import Method

    runnable = [item for item in found if isinstance(item, Method) and item.kind == "runnable"]
    narrow = console.width() < ROOMY
    for family in sorted({item.family for item in runnable}):
        rows = [
            (item.name, trained(item, shape), *(() if narrow else [", ".join(_can(item)) or "-"]), item.summary)
            for item in runnable
            if item.family == family
        ]
        columns = ("method", "trains", *(() if narrow else ["can"]), "what it does")
        console.table(family.capitalize(), columns, rows, right=("trains",), keep=("method", "trains"))
    for kind, title in OTHERS.items():
        if of_kind := [item for item in found if item.kind == kind]:
            rest = [(item.name, item.summary) for item in of_kind]
            console.table(title, ("name", "what it is"), rest, keep=("name",))
    console.say(f"trains: parameters on {model} (--model for another; - where it cannot serve it).")
    if not narrow:
        console.say("can: merge into the base, work on a 4-bit base, hold several adapters on one base.")
    console.say("`peftselect methods NAME` says all about one, --matrix what each serves and can.")


def _can(method: Method) -> Iterator[str]:
    if method.mergeable:
        yield "merge"
    if method.quantized_base != "no":
        yield "4-bit" if method.quantized_base == "possible" else "4-bit only"
    if method.multi_adapter:
        yield "several"


def _document(entry: Entry, shape: ModelShape) -> dict[str, Any]:
    from peftselect.catalogue import document
    from peftselect.method import Method
    from peftselect.plugin_manager import host

    found = document(entry, host().tasks())
    if not isinstance(entry, Method):
        return found
    return {
        **found,
        "formula": entry.formula,
        "rate_from": entry.rate_from,
        "limits": list(entry.limits),
        "simplified": list(entry.simplified),
        "needs": entry.needs,
        "heads": sorted(entry.heads),
        "acts_on": sorted(entry.acts_on),
        "multi_adapter": entry.multi_adapter,
        "gradient_checkpointing": entry.gradient_checkpointing,
        "adds_inference_cost": entry.adds_inference_cost,
        "saves_adapter": entry.saves_adapter,
        "unsupported": unsupported(entry, shape),
        "trainable_parameters": trainable(entry, shape),
        "hyperparameters": [asdict(item) for item in entry.hyperparameters(shape)],
        "structure": asdict(entry.structure),
    }


def unsupported(method: Method, shape: ModelShape) -> str | None:
    """Why the method cannot serve this model under its usual head, or None."""
    from peftselect.method import resolve_values

    if shape.architecture not in method.architectures:
        return f"it does not work on {shape.architecture} models"
    if shape.head.kind not in method.heads:
        return f"it does not serve {article(shape.head.kind.replace('_', ' '))} head"
    return method.unsupported(shape, resolve_values(method, shape))


def trainable(method: Method, shape: ModelShape) -> int | None:
    """Trained parameters with the default settings, or None where the method cannot serve the model."""
    from peftselect.method import resolve_values

    return None if unsupported(method, shape) else method.trainable_parameters(shape, resolve_values(method, shape))


def trained(method: Method, shape: ModelShape) -> str:
    """The same for people."""
    from peftselect.words import count

    number = trainable(method, shape)
    return "-" if number is None else count(number)
