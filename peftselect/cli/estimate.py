"""Predict the memory of one training run, part by part, and what would make it fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from peftselect.cli import options
from peftselect.words import count, size

if TYPE_CHECKING:
    from peftselect.memory.estimate import Estimate

DOES_NOT_FIT = 3
#: ways out that are shown
FEW_CHANGES = 5
_PARTS = {
    "weights": ("blue", "the base model as it is held while training"),
    "adapter": ("cyan", "what the method adds, in float32"),
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


@click.command()
@click.option(
    "--model",
    required=True,
    metavar="REF",
    shell_complete=options.complete(options.model_names),
    help="Base model: a catalogue name, a folder with config.json or a hub id.",
)
@click.option("--method", required=True, shell_complete=options.complete(options.method_names), help="The method.")
@options.set_option
@click.option(
    "--task",
    metavar="NAME",
    shell_complete=options.complete(options.task_names),
    help="Takes the head and the lengths of this task; without it, the model's usual head.",
)
@click.option("--num-labels", type=int, default=2, show_default=True, metavar="N", help="Number of labels or choices.")
@click.option("--batch-size", type=int, default=8, show_default=True, metavar="N", help="Micro-batch of one device.")
@click.option("--accumulation", type=int, default=1, show_default=True, metavar="N", help="Micro-batches a step.")
@click.option("--max-length", type=int, metavar="TOKENS", help="Longest input.")
@click.option("--max-target-length", type=int, metavar="TOKENS", help="Longest output.")
@click.option(
    "--precision",
    type=click.Choice(["bf16", "fp16", "fp32", "pure_bf16"]),
    default="bf16",
    show_default=True,
    help="pure_bf16: full fine-tuning without float32 master weights.",
)
@click.option(
    "--quantization",
    type=click.Choice(["none", "int8", "nf4"]),
    help="How the frozen base is stored.  [default: what the method needs]",
)
@click.option(
    "--optimizer", default="adamw", show_default=True, metavar="NAME", help="adamw, adamw_8bit, adafactor, ..."
)
@click.option("--gradient-checkpointing", is_flag=True, help="Recompute activations in the backward pass.")
@click.option(
    "--exact", is_flag=True, help="Trace the real training step on fake tensors: seconds, no GPU, no weights."
)
@click.option("--vram", "vram_gib", type=float, metavar="GIB", help="Memory of one device in GiB; else the card's.")
@click.option("--devices", type=int, default=1, show_default=True, metavar="N", help="Number of devices.")
@click.option(
    "--sharding",
    type=click.Choice(["none", "zero1", "zero2", "zero3"]),
    default="none",
    show_default=True,
    help="What the devices share (ZeRO stages; zero3 is FSDP's full sharding).",
)
@options.json_option
def estimate(
    model: str,
    method: str,
    settings: dict[str, str],
    task: str | None,
    num_labels: int,
    batch_size: int,
    accumulation: int,
    max_length: int | None,
    max_target_length: int | None,
    precision: str,
    quantization: str | None,
    optimizer: str,
    gradient_checkpointing: bool,
    exact: bool,
    vram_gib: float | None,
    devices: int,
    sharding: str,
    as_json: bool,
) -> int:
    """Predict the peak memory of training on one device, part by part.

    \b
    peftselect estimate --model flan-t5-base --method lora --set r=16 --vram 4
    peftselect estimate --model llama-3.2-3b --method qlora --batch-size 4 --max-length 1024 --vram 8

    Exit code 3: it does not fit.
    """
    from peftselect.cli import console
    from peftselect.hardware import hardware
    from peftselect.memory import estimate as engine

    if exact and not as_json:
        console.note("tracing a training step on fake tensors ...")
    answer = engine.estimate(
        model,
        method,
        hardware(vram_gib, devices=devices, sharding=sharding),
        task=task,
        num_labels=num_labels,
        settings=settings,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_length=max_length,
        max_target_length=max_target_length,
        precision=precision,
        quantization=quantization,
        optimizer=optimizer,
        gradient_checkpointing=gradient_checkpointing,
        exact=exact,
    )
    if as_json:
        console.print_json(answer.to_json())
    else:
        _show(answer, devices)
    return 0 if answer.verdict.fits else DOES_NOT_FIT


def _show(answer: Estimate, devices: int) -> None:
    from peftselect.cli import console

    recipe, memory = answer.recipe, answer.memory
    each = f" on each of {devices} devices" if devices > 1 else ""
    console.heading(f"{answer.method} on {answer.model}{each}: {size(memory.device_bytes)}")
    words = [recipe.precision, f"micro-batch {recipe.micro_batch_size}", f"inputs of {recipe.max_length} tokens"]
    words += [f"outputs of {recipe.max_target_length}"] * bool(recipe.max_target_length)
    words += [recipe.optimizer, *(["gradient checkpointing"] * recipe.gradient_checkpointing)]
    words += [f"base in {recipe.quantization}"] * bool(recipe.quantization)
    console.say(", ".join(words), style="dim")
    console.say()
    shown = {name: amount for name, amount in memory.breakdown.items() if amount}
    total = max(memory.device_bytes, answer.vram_bytes or 0)
    colours = {name: _PARTS.get(name, ("white", ""))[0] for name in shown}
    console.line(console.bar([(name, amount, colours[name]) for name, amount in shown.items()], total))
    rows = [
        (console.styled("█", colours[name]), name.replace("_", " "), size(amount), _PARTS.get(name, ("", ""))[1])
        for name, amount in shown.items()
    ]
    console.table("", ("", "at the peak", "size", "what it is"), rows, right=("size",))
    trained = f"{count(answer.trainable_parameters)} of {count(answer.total_parameters)}"
    saved = "the model" if answer.shape.total_parameters == answer.trainable_parameters else "the adapter"
    console.facts(
        [
            ("trained", f"{trained}; {saved} is {size(answer.adapter_bytes)} on disk"),
            ("how sure", f"± {memory.error_band_percent:g} % ({memory.source.replace('_', ' ')})"),
            ("verdict", console.styled(*_verdict(answer))),
        ]
    )
    if answer.traced:
        reserved = size(answer.traced.peak_reserved_bytes)
        console.say(f"With room to spare the allocator would reserve {reserved}.", style="dim")
    if answer.note:
        console.say(f"Note: {answer.note}", style="dim")
    if answer.changes:
        console.say()
        changes = [(change.text, size(change.peak_bytes)) for change in answer.changes[:FEW_CHANGES]]
        console.table("What would make it fit, the least harmful first", ("change", "peak"), changes, right=("peak",))
    elif not answer.verdict.fits:
        console.say("No change that is tried here makes it fit: take a smaller model.", style="bold red")


def _verdict(answer: Estimate) -> tuple[str, str]:
    if answer.vram_bytes is None:
        return "no limit was given (--vram)", "dim"
    word, style = _VERDICTS[answer.verdict.verdict]
    margin = answer.verdict.margin_bytes or 0
    spare = f"{size(margin)} to spare" if margin >= 0 else f"{size(-margin)} too much"
    return f"{word} in {size(answer.vram_bytes)}, {spare}", style
