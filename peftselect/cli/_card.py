"""The card of one method, baseline or technique: everything that is known about it, on a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peftselect.cli import console
from peftselect.cli.methods import trained, unsupported
from peftselect.method import Method, resolve_values
from peftselect.stage import Stage
from peftselect.technique import Technique

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftselect.hyperparameter import Hyperparameter
    from peftselect.plugin_manager import Entry
    from peftselect.shape import ModelShape

#: data sets whose score is shown in a row; of more the best places are
SHOWN_SETS = 5


def show(entry: Entry, shape: ModelShape, model: str) -> None:
    """Print the card; ``model`` is the name of the model with this ``shape``."""
    console.heading(f"{entry.title} ({entry.name})")
    console.say(_idea(entry))
    console.say()
    if isinstance(entry, Method):
        _method(entry, shape, model)
    else:
        console.facts(_technique(entry))
        console.say()
    if isinstance(entry, Stage):
        _settings("Settings", entry.hyperparameters())
    if not isinstance(entry, Technique):
        _caveats(entry)
    _evidence(entry)
    if entry.references:
        console.heading("References")
        for reference in entry.references:
            console.say(f"{reference.title} ({reference.year}) {reference.url}")
        console.say()
    if not isinstance(entry, Technique):
        console.say("To try it:")
        console.command(f"peftselect run {_options(entry)}")


def _options(entry: Method | Stage) -> str:
    if isinstance(entry, Method):
        return f"--method {entry.name}"
    needed = ",".join(f"{item.name}=..." for item in entry.hyperparameters() if item.default is None)
    return f"--{max(entry.places)} {entry.name}" + (f":{needed}" if needed else "") + " --method lora"


def _idea(entry: Entry) -> str:
    """Two sentences: what it does, and how that sits in the network (or why it is not run)."""
    if isinstance(entry, Stage):
        places = " or ".join(f"--{place}" for place in sorted(entry.places, reverse=True))
        return f"{entry.summary} It is a stage beside a method: peftselect run {places} {entry.name}."
    if not isinstance(entry, Method):
        return f"{entry.summary} It cannot be run: {entry.because}."
    if entry.kind == "baseline":
        return f"{entry.summary} Nothing is trained."
    form = entry.structure
    how = f"{form.insertion_form}, {form.insertions}, joined by {form.integration_form}"
    return f"{entry.summary} It works on {form.workspace} ({how})."


def _method(method: Method, shape: ModelShape, model: str) -> None:
    console.facts(_abilities(method, shape, model))
    console.say()
    caption = f"learning_rate: {method.rate_from}." if method.rate_from else ""
    _settings(f"Settings (defaults on {model})", method.hyperparameters(shape), caption)
    if method.kind == "baseline":
        return
    source = "from the paper" if method.structure.derived else "thesis table 2.3"
    structure = [(key.replace("_", " "), value) for key, value in asdict(method.structure).items() if key != "derived"]
    console.heading(f"Structure (PEFT-Ref; {source})")
    console.facts(structure)
    console.say()


def _settings(title: str, settings: Sequence[Hyperparameter], caption: str = "") -> None:
    rows = [(item.name, _text(item.default), _range(item), item.help) for item in settings]
    console.table(title, ("name", "default", "range", "meaning"), rows, keep=("name",))
    if caption:
        console.say(caption)
        console.say()


def _caveats(entry: Method | Stage) -> None:
    for title, lines in (("Limits", entry.limits), ("Simplified against the paper", entry.simplified)):
        if lines:
            console.heading(title)
            console.facts(("•", text) for text in lines)
            console.say()


def _abilities(method: Method, shape: ModelShape, model: str) -> Iterator[tuple[str, object]]:
    yield "family", method.family
    if method.aliases:
        yield "also called", ", ".join(method.aliases)
    if method.thesis:
        yield "in the thesis", _places(method.thesis)
    if method.needs:
        yield "needs", method.needs
    if why := unsupported(method, shape):
        yield "trains", f"nothing of {model}: {why}"
    elif method.kind == "runnable":
        yield from _formula(method, shape, model)
    yield "acts on", ", ".join(sorted(method.acts_on)) or "nothing inside the base"
    yield "task heads", ", ".join(sorted(method.heads)).replace("_", " ")
    yield "models", ", ".join(sorted(method.architectures))
    yield "merges into the base", _yes(method.mergeable)
    yield "quantised base", method.quantized_base
    yield "several on one base", _yes(method.multi_adapter)
    yield "gradient checkpointing", _yes(method.gradient_checkpointing)
    yield "slows inference", _yes(method.adds_inference_cost)
    if method.kind == "runnable":
        yield "saves", "an adapter" if method.saves_adapter else "a whole model"
    if method.records_like:
        yield "judged like", f"{method.records_like} (it has few records of its own)"
    if not method.judged:
        yield "recommended", "no: neither the thesis nor a record says how well it does; it runs by name"


def _formula(method: Method, shape: ModelShape, model: str) -> Iterator[tuple[str, object]]:
    """The parameters that are trained: the formula, its letters on this model, and what comes out."""
    from peftselect.catalogue import symbols

    head = shape.head.parameters
    plus = f" (the head's {head:,} among them)" if head else ""
    if method.formula:
        yield "formula", method.formula
    if numbers := symbols(method, shape, resolve_values(method, shape)):
        yield f"on {model}", ", ".join(numbers)
    share = 100 * method.trainable_parameters(shape, resolve_values(method, shape)) / shape.total_parameters
    yield "trains", f"{trained(method, shape)} parameters of {model}, {share:.2g} %{plus}"


def _technique(entry: Entry) -> Iterator[tuple[str, object]]:
    yield "family", entry.family
    if entry.aliases:
        yield "also called", ", ".join(entry.aliases)
    yield "in the thesis", _places(entry.thesis)
    if instead := getattr(entry, "instead", ()):
        yield "use instead", ", ".join(instead)


def _evidence(entry: Entry) -> None:
    """What the tables of the thesis report."""
    from peftselect.catalogue import reported
    from peftselect.plugin_manager import host
    from peftselect.results import shipped_records

    rows = []
    for item in reported(entry, shipped_records(host())):
        best = sorted(item.scores, key=lambda score: score[2])
        shown = item.scores if len(item.scores) <= SHOWN_SETS else best[:SHOWN_SETS]
        scores = ", ".join(f"{name} {value:g} ({place} of {total})" for name, value, place, total in shown)
        more = f" and {len(item.scores) - len(shown)} more" if len(item.scores) > len(shown) else ""
        rows.append((item.table.removeprefix("table "), item.model, f"{item.mean_place:.1f}", scores + more))
    if rows:
        columns = ("table", "model", "place", "score and place among the methods of the table")
        caption = "place: on average over the data sets of the table; 1 is the best. `peftselect results` has them all."
        console.table("What the thesis reports", columns, rows, right=("place",), caption=caption)
        console.say()


def _places(thesis: Sequence[str]) -> str:
    """Sections and tables as people cite them."""
    tables = [place[1:] for place in thesis if place.startswith("T")]
    sections = [place for place in thesis if not place.startswith("T")]
    parts = [f"section{'s' * (len(sections) > 1)} {', '.join(sections)}"] if sections else []
    parts += [f"table{'s' * (len(tables) > 1)} {', '.join(tables)}"] if tables else []
    return "; ".join(parts) or "not named"


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
