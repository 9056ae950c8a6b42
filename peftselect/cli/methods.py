"""List the fine-tuning methods, or say all about one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.hyperparameter import Hyperparameter
    from peftselect.method import Method
    from peftselect.shape import ModelShape

#: the model on whose shape defaults are shown unless --model says otherwise
EXAMPLE_MODEL = "flan-t5-base"


@click.command()
@click.argument("name", required=False, shell_complete=options.complete(options.method_names))
@click.option(
    "--model",
    default=EXAMPLE_MODEL,
    show_default=True,
    metavar="REF",
    shell_complete=options.complete(options.model_names),
    help="Base model for which defaults and counts are shown.",
)
@options.json_option
def methods(name: str | None, model: str, as_json: bool) -> None:
    """List the methods, or with NAME say all about one: settings with ranges, structure, references, limits."""
    from peftselect.base_models import resolve_base_model
    from peftselect.cli import console
    from peftselect.plugin_manager import host
    from peftselect.shapes import read_shape

    base = resolve_base_model(model)
    shape = read_shape(base.config)
    if name is None:
        found = list(host().methods().values())
        if as_json:
            console.print_json({"schema": 1, "model": base.name, "methods": [_document(item, shape) for item in found]})
        else:
            _list(found, shape, base.name)
        return
    method = host().method(name)
    if as_json:
        console.print_json({"schema": 1, "model": base.name, **_document(method, shape)})
    else:
        _page(method, shape, base.name)


def _list(found: list[Method], shape: ModelShape, model: str) -> None:
    from peftselect.cli import console

    families = sorted({item.family for item in found})
    for family in families:
        rows = [
            (item.name, _trained(item, shape), ", ".join(_can(item)) or "-", item.summary)
            for item in found
            if item.family == family
        ]
        columns = ("method", "trains", "can", "what it does")
        console.table(family.capitalize(), columns, rows, right=("trains",), keep=("method", "trains"))
    console.say(f"trains: parameters on {model} (--model for another; - where it cannot serve it).")
    console.say("can: merge into the base, work on a 4-bit base, hold several adapters on one base.")
    console.say("`peftselect methods NAME` says all about one.")


def _can(method: Method) -> Iterator[str]:
    if method.mergeable:
        yield "merge"
    if method.quantized_base != "no":
        yield "4-bit" if method.quantized_base == "possible" else "4-bit only"
    if method.multi_adapter:
        yield "several"


def _page(method: Method, shape: ModelShape, model: str) -> None:
    from peftselect.cli import console

    console.heading(f"{method.title} ({method.name})")
    console.say(method.summary)
    console.say()
    console.facts(_abilities(method, shape, model))
    console.say()
    rows = [(item.name, _text(item.default), _range(item), item.help) for item in method.hyperparameters(shape)]
    console.table(f"Settings (defaults on {model})", ("name", "default", "range", "meaning"), rows)
    source = "from the paper" if method.structure.derived else "thesis table 2.3"
    structure = [(key.replace("_", " "), value) for key, value in asdict(method.structure).items() if key != "derived"]
    console.heading(f"Structure (PEFT-Ref; {source})")
    console.facts(structure)
    console.say()
    console.heading("References")
    for reference in method.references:
        console.say(f"{reference.title} ({reference.year}) {reference.url}")
    console.say()
    console.say("To try it:")
    console.command(f"peftselect run --method {method.name}")


def _abilities(method: Method, shape: ModelShape, model: str) -> Iterator[tuple[str, object]]:
    yield "family", method.family
    if method.aliases:
        yield "also called", ", ".join(method.aliases)
    yield "acts on", ", ".join(sorted(method.acts_on)) or "nothing inside the base"
    yield "task heads", ", ".join(sorted(method.heads)).replace("_", " ")
    yield "models", ", ".join(sorted(method.architectures))
    yield "trains", f"{_trained(method, shape)} parameters of {model}"
    yield "merges into the base", _yes(method.mergeable)
    yield "quantised base", method.quantized_base
    yield "several on one base", _yes(method.multi_adapter)
    yield "gradient checkpointing", _yes(method.gradient_checkpointing)
    yield "slows inference", _yes(method.adds_inference_cost)
    yield "saves", "an adapter" if method.saves_adapter else "a whole model"
    if method.records_like:
        yield "judged like", f"{method.records_like} (it has few records of its own)"


def _document(method: Method, shape: ModelShape) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "summary": method.summary,
        "family": method.family,
        "aliases": list(method.aliases),
        "heads": sorted(method.heads),
        "architectures": sorted(method.architectures),
        "acts_on": sorted(method.acts_on),
        "mergeable": method.mergeable,
        "multi_adapter": method.multi_adapter,
        "quantized_base": method.quantized_base,
        "gradient_checkpointing": method.gradient_checkpointing,
        "adds_inference_cost": method.adds_inference_cost,
        "saves_adapter": method.saves_adapter,
        "unsupported": _unsupported(method, shape),
        "trainable_parameters": _trainable(method, shape),
        "hyperparameters": [asdict(item) for item in method.hyperparameters(shape)],
        "structure": asdict(method.structure),
        "references": [asdict(item) for item in method.references],
    }


def _unsupported(method: Method, shape: ModelShape) -> str | None:
    """Why the method cannot serve this model under its usual head, or None."""
    from peftselect.method import resolve_values

    if shape.architecture not in method.architectures:
        return f"it does not work on {shape.architecture} models"
    if shape.head.kind not in method.heads:
        return f"it does not serve a {shape.head.kind.replace('_', ' ')} head"
    return method.unsupported(shape, resolve_values(method, shape))


def _trainable(method: Method, shape: ModelShape) -> int | None:
    from peftselect.method import resolve_values

    return None if _unsupported(method, shape) else method.trainable_parameters(shape, resolve_values(method, shape))


def _trained(method: Method, shape: ModelShape) -> str:
    from peftselect.words import count

    number = _trainable(method, shape)
    return "-" if number is None else count(number)


def _range(item: Hyperparameter) -> str:
    if item.choices:
        return ", ".join(map(_text, item.choices))
    return f"{item.low:g} to {item.high:g}" if item.low is not None and item.high is not None else item.kind


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return _yes(value)
    return f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
