"""Predict the memory of one training run, part by part, and what would make it fit."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.errors import InputError

if TYPE_CHECKING:
    from peftselect.memory.batch_lengths import BatchLengths
    from peftselect.memory.estimate import Estimate, TraceMode
    from peftselect.memory.search import Largest
    from peftselect.memory.setting import Setting
    from peftselect.problem import Hardware

DOES_NOT_FIT = 3
#: options that --config may not set: it names them, or they are not settings
_NOT_IN_FILES = {"config", "as_json", "compare", "more", "help"}


def _from_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    """Options of a file become the defaults: what the command line says goes before them."""
    if path is None:
        return
    from peftselect.memory.setting_files import read_options

    names = {item.name for item in context.command.params if item.name} - _NOT_IN_FILES
    renamed = {"vram": "vram_gib"}
    known = (names - set(renamed.values())) | set(renamed)
    found = {renamed.get(name, name): value for name, value in read_options(path, known).items()}
    settings = found.get("settings")
    if isinstance(settings, dict):
        found["settings"] = [f"{name}={value}" for name, value in settings.items()]
    context.default_map = {**(context.default_map or {}), **found}


@click.command()
@click.option(
    "--config", is_eager=True, expose_value=False, callback=_from_file, metavar="FILE",
    help="JSON with options of this command by name, settings as an object; the command line goes before it.",
)  # fmt: skip
@click.option(
    "--model",
    required=True,
    metavar="REF",
    shell_complete=options.complete(options.model_names),
    help="Base model: a catalogue name, a folder with config.json or a hub id.",
)
@click.option("--method", shell_complete=options.complete(options.method_names), help="The method.")
@options.set_option
@click.option("--peft-config", metavar="FILE", help="In a method's place: any adapter_config.json.")
@click.option(
    "--compare", multiple=True, metavar="'METHOD NAME=VALUE ...'",
    help="Price several methods side by side: --compare 'lora r=8' 'dora r=16'.",
)  # fmt: skip
@click.argument("more", nargs=-1, metavar="")
@click.option(
    "--task",
    metavar="NAME",
    shell_complete=options.complete(options.task_names),
    help="Takes the head and the lengths of this task; without it, the model's usual head.",
)
@click.option("--train", metavar="FILE", help="Training data: the estimate is for its longest batch. Needs --task.")
@click.option("--columns", callback=options.pairs, metavar="OURS=YOURS,...", help="Which column holds what.")
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
@click.option("--fast", "trace", flag_value="fast", help="Trace a few layers on fake tensors and extend.  [default]")
@click.option("--exact", "trace", flag_value="exact", help="Trace every layer and replay CUDA's allocator.")
@click.option("--no-trace", "trace", flag_value="never", help="The closed form alone: milliseconds, no torch.")
@click.option("--max-batch", is_flag=True, help="Find the largest micro-batch that fits --vram.")
@click.option("--find-max-length", is_flag=True, help="Find the longest input that fits --vram.")
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
    compare: tuple[str, ...], more: tuple[str, ...], max_batch: bool, find_max_length: bool, trace: TraceMode | None,
    vram_gib: float | None, devices: int, sharding: str, as_json: bool, **how: Any,
) -> int:  # fmt: skip
    """Predict the peak memory of training on one device, part by part.

    \b
    peftselect estimate --model flan-t5-base --method lora --set r=16 --vram 4
    peftselect estimate --model llama-3.2-3b --method qlora --batch-size 4 --max-length 1024 --vram 8
    peftselect estimate --model gpt2 --compare 'lora r=8' 'dora r=16' --vram 4 --max-batch

    The real training step is traced on fake tensors: no GPU, no weights, a few seconds, remembered. Exit code 3: it
    does not fit.
    """
    from peftselect.cli import _estimate_output as output
    from peftselect.cli import console
    from peftselect.hardware import hardware

    if more and not compare:
        raise InputError(f"what is {more[0]!r} for?", "several methods go behind --compare")
    if max_batch and find_max_length:
        raise InputError("--max-batch and --find-max-length ask two questions", "ask one at a time")
    machine = hardware(vram_gib, devices=devices, sharding=sharding)
    mode: TraceMode = trace or "fast"
    with console.waiting("tracing a training step on fake tensors", quiet=mode == "never" or as_json):
        lengths = _lengths(how)
        asked: list[str | None] = [*compare, *more]
        settings = [_settle(one, machine, how) for one in asked or [None]]
        found = [_ask(setting, mode, max_batch, find_max_length) for setting in settings]
    if as_json:
        documents = [_document(answer, largest, lengths) for answer, largest in found]
        console.print_json(documents[0] if not compare else {"schema": 1, "estimates": documents})
    elif compare:
        output.show_comparison([*compare, *more], found)
    else:
        output.show(*found[0], devices, lengths)
    fits = [answer.verdict.fits and (largest is None or largest.size > 0) for answer, largest in found]
    return 0 if any(fits) else DOES_NOT_FIT


def _settle(one: str | None, machine: Hardware, how: dict[str, Any]) -> Setting:
    """The setting of one method: that of the options, or of one entry of --compare."""
    from peftselect.memory.setting import settle
    from peftselect.memory.setting_files import read_peft_config

    given = {name: value for name, value in how.items() if name not in ("train", "columns", "peft_config", "method")}
    given["gradient_accumulation_steps"] = given.pop("accumulation")
    method, file = how["method"], how["peft_config"]
    if one is not None:
        if method or file:
            raise InputError("--compare names the methods itself", "leave --method and --peft-config out")
        words = shlex.split(one)
        if not words:
            raise InputError("--compare '' names no method", "write --compare 'lora r=8'")
        method = words[0]
        given["settings"] = {**given["settings"], **options.read_pairs("--compare", words[1:])}
    return settle(model=given.pop("model"), method=method, machine=machine,
                  peft_config=read_peft_config(file) if file else None, **given)  # fmt: skip


def _lengths(how: dict[str, Any]) -> BatchLengths | None:
    """Lengths of the training file; its longest row becomes the length of the estimate, unless one was given."""
    if how["train"] is None:
        return None
    from peftselect.base_models import resolve_base_model
    from peftselect.memory.batch_lengths import batch_lengths
    from peftselect.plugin_manager import host
    from peftselect.shapes import read_shape

    task = host().task(options.need_task(how["task"]))
    base = resolve_base_model(how["model"])
    found = batch_lengths(how["train"], task, base, how["batch_size"], how["columns"])
    room = read_shape(base.config).max_positions
    if how["max_length"] is None:
        how["max_length"] = min(found.rows.longest, room or found.rows.longest)
    if how["max_target_length"] is None and found.targets.longest and task.default_max_target_length:
        how["max_target_length"] = min(found.targets.longest, task.default_max_target_length)
    return found


def _ask(setting: Setting, mode: TraceMode, max_batch: bool, find_max_length: bool) -> tuple[Estimate, Largest | None]:
    from peftselect.memory.estimate import price
    from peftselect.memory.search import largest_batch, longest_input

    if not max_batch and not find_max_length:
        return price(setting, mode), None
    largest = largest_batch(setting, mode) if max_batch else longest_input(setting, mode)
    return largest.estimate, largest


def _document(answer: Estimate, largest: Largest | None, lengths: BatchLengths | None) -> dict[str, Any]:
    document = {"method": answer.method, **answer.to_json()}
    if largest is not None:
        document["search"] = {"what": largest.what, "largest": largest.size, "limit": largest.limit}
    if lengths is not None:
        document["lengths"] = {
            "examples": lengths.examples,
            "origin": lengths.origin,
            "rows": vars(lengths.rows),
            "batches": vars(lengths.batches),
            "targets": vars(lengths.targets),
        }
    return document
