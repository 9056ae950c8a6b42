"""How an estimate looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.cli import console
from peftselect.words import count, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftselect.memory.batch_lengths import BatchLengths
    from peftselect.memory.estimate import Estimate
    from peftselect.memory.search import Largest

#: ways out that are shown
FEW_CHANGES = 5
_PARTS = {
    "weights": ("blue", "the base model as it is held while training"),
    "packing": ("bright_blue", "the base as it is loaded, before the method packs it"),
    "adapter": ("cyan", "what the method adds"),
    "gradients": ("magenta", "of what is trained"),
    "optimizer": ("red", "states of the optimizer"),
    "optimizer_step": ("bright_red", "copies while the optimizer steps"),
    "activations": ("green", "what the backward pass needs"),
    "logits_and_loss": ("yellow", "outputs over the vocabulary, and their loss"),
    "workspace": ("bright_black", "of matrix products"),
    "fragmentation": ("bright_black", "what the allocator loses"),
    "cuda_context": ("white", "outside the allocator; assumed, not measured"),
}
_VERDICTS = {"fits": ("fits", "bold green"), "borderline": ("borderline", "bold yellow"),
             "does_not_fit": ("does not fit", "bold red")}  # fmt: skip
_SOURCES = {
    "closed_form": "closed form",
    "fast_trace": "fast trace: a few layers of the real step, extended",
    "exact_trace": "exact trace: every layer of the real step, through CUDA's allocator",
}


def show(answer: Estimate, largest: Largest | None, devices: int, lengths: BatchLengths | None) -> None:
    """One estimate: the bar, the parts, the verdict, and what would make it fit."""
    recipe, memory = answer.recipe, answer.memory
    each = f" on each of {devices} devices" if devices > 1 else ""
    console.heading(f"{answer.method} on {answer.model}{each}: {size(memory.device_bytes)}")
    unit = answer.shape.length_unit
    words = [recipe.precision, f"micro-batch {recipe.micro_batch_size}", f"inputs of {recipe.max_length} {unit}"]
    words += [f"outputs of {recipe.max_target_length}"] * bool(recipe.max_target_length)
    words += [recipe.optimizer, *(["gradient checkpointing"] * recipe.gradient_checkpointing)]
    words += [f"base in {recipe.quantization}"] * bool(recipe.quantization)
    console.say(", ".join(words), style="dim")
    console.say()
    _parts(answer)
    console.facts(
        [*_facts(answer), *(_found(largest) if largest else ()), *(_spreads(lengths, unit) if lengths else ())]
    )
    if answer.traced and not answer.traced.fast:
        reserved = size(answer.traced.peak_reserved_bytes)
        console.say(f"With room to spare the allocator would reserve {reserved}.", style="dim")
    if answer.note:
        console.say(f"Note: {answer.note}", style="dim")
    if answer.changes:
        console.say()
        changes = [
            (change.text, size(change.peak_bytes), _less(change.peak_bytes, memory.peak_bytes))
            for change in answer.changes[:FEW_CHANGES]
        ]
        title = "What would make it fit, the least harmful first"
        console.table(title, ("change", "peak", "effect"), changes, right=("peak", "effect"))
    elif not answer.verdict.fits:
        console.say("No change that is tried here makes it fit: take a smaller model.", style="bold red")


def show_comparison(names: Sequence[str], found: Sequence[tuple[Estimate, Largest | None]]) -> None:
    """Several estimates side by side."""
    first, searched = found[0]
    console.heading(f"On {first.model}")
    columns = ["method", *(["largest"] if searched else []), "peak", "trained", "adapter", "verdict", "from"]
    rows = []
    for name, (answer, largest) in zip(names, found, strict=True):
        sized = [f"{largest.size} {_unit(largest)}" if largest.size else "none"] if largest else []
        verdict = console.styled(*_verdict(answer))
        rows.append((name, *sized, size(answer.memory.device_bytes), count(answer.trainable_parameters),
                     size(answer.adapter_bytes), verdict, answer.memory.source.replace("_", " ")))  # fmt: skip
    console.table("", columns, rows, right=("largest", "peak", "trained", "adapter"), keep=("peak", "trained"))
    for name, (answer, _) in zip(names, found, strict=True):
        if answer.note:
            console.say(f"Note on {name}: {answer.note}", style="dim")


def _unit(largest: Largest) -> str:
    return "rows" if largest.what == "batch_size" else largest.estimate.shape.length_unit


def _parts(answer: Estimate) -> None:
    shown = {name: amount for name, amount in answer.memory.breakdown.items() if amount}
    total = max(answer.memory.device_bytes, answer.vram_bytes or 0)
    colours = {name: _PARTS.get(name, ("white", ""))[0] for name in shown}
    console.line(console.bar([(name, amount, colours[name]) for name, amount in shown.items()], total))
    rows = [
        (console.styled("█", colours[name]), name.replace("_", " "), size(amount), _PARTS.get(name, ("", ""))[1])
        for name, amount in shown.items()
    ]
    console.table("", ("", "at the peak", "size", "what it is"), rows, right=("size",))


def _facts(answer: Estimate) -> Iterator[tuple[str, object]]:
    trained = f"{count(answer.trainable_parameters)} of {count(answer.total_parameters)}"
    saved = "the model" if answer.total_parameters == answer.trainable_parameters else "the adapter"
    yield "trained", f"{trained}; {saved} is {size(answer.adapter_bytes)} on disk"
    band = answer.memory.band
    source = _SOURCES[answer.memory.source]
    yield "how sure", f"± {band.worst_percent:g} % at worst, {band.median_percent:g} % in the median ({source})"
    yield "verdict", console.styled(*_verdict(answer))


def _found(largest: Largest) -> Iterator[tuple[str, object]]:
    name = "largest batch" if largest.what == "batch_size" else "longest input"
    if not largest.size:
        yield name, "none: not even the smallest fits"
    else:
        yield name, f"{largest.size} {_unit(largest)}, limited by {largest.limit}"


def _spreads(lengths: BatchLengths, unit: str) -> Iterator[tuple[str, object]]:
    rows, batches = lengths.rows, lengths.batches
    yield "rows", f"{lengths.examples:,}, of {rows.p50} {unit} (median), {rows.p99} (99 %), {rows.longest} (longest)"
    yield "batches", f"padded to {batches.p50} (median), {batches.p99} (99 %), {batches.longest} (longest)"
    yield "", lengths.origin


def _less(now: int, before: int) -> str:
    return f"{100 * (now - before) / before:+.0f} %"


def _verdict(answer: Estimate) -> tuple[str, str]:
    if answer.vram_bytes is None:
        return "no limit was given (--vram)", "dim"
    word, style = _VERDICTS[answer.verdict.verdict]
    margin = answer.verdict.margin_bytes or 0
    spare = f"{size(margin)} to spare" if margin >= 0 else f"{size(-margin)} too much"
    return f"{word} in {size(answer.vram_bytes)}, {spare}", style
