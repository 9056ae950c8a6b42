"""Options that several commands share: the words in which a user puts a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftselect.errors import InputError, UnknownNameError
from peftselect.problem import MUSTS, TRAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from click.shell_completion import CompletionItem


def complete(names: Callable[[], list[str]]) -> Callable[..., list[CompletionItem]]:
    """Shell completion from a function that lists the names."""

    def answer(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return answer


def task_names() -> list[str]:
    """Names of the registered tasks."""
    from peftselect.plugin_manager import host

    return list(host().tasks())


def method_names() -> list[str]:
    """Names of what can be run: methods and baselines."""
    from peftselect.plugin_manager import host

    return [*host().methods(), *host().baselines()]


def entry_names() -> list[str]:
    """Names of everything in the catalogue: methods, baselines and what cannot be run."""
    from peftselect.plugin_manager import host

    return list(host().entries())


def model_names() -> list[str]:
    """Names in the catalogue of base models."""
    from peftselect.base_models import catalogue

    return list(catalogue())


def comma_list(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split ``a,b`` into its parts."""
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def pairs(context: click.Context, parameter: click.Parameter, values: Any) -> dict[str, str]:
    """Read ``name=value`` (repeated, or several with commas where the option is not repeatable) into a dict."""
    words = values if isinstance(values, tuple) else tuple((values or "").split(","))
    return read_pairs(parameter.opts[0], words)


def read_pairs(option: str, words: Iterable[str]) -> dict[str, str]:
    """``name=value`` words as a dict; InputError names the option that one does not suit."""
    found: dict[str, str] = {}
    for word in filter(None, words):
        name, equals, value = word.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(f"{option} {word!r} is not name=value", f"write {option} name=value")
        found[name.strip()] = value.strip()
    return found


def _one_of(kind: str, known: tuple[str, ...]) -> Callable[..., Any]:
    """A check against ``known`` whose message suggests the close names."""

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        names = value if isinstance(value, tuple) else comma_list(context, parameter, value)
        for name in names:
            if name not in known:
                raise UnknownNameError(kind, name, list(known))
        return names

    return check


QUESTION: tuple[Callable[..., Any], ...] = (
    click.option("--task", metavar="NAME", shell_complete=complete(task_names), help="What the model should do."),
    click.option(
        "--model",
        metavar="REF",
        shell_complete=complete(model_names),
        help="Base model: a catalogue name, a folder with config.json or a hub id. Without it one is proposed.",
    ),
    click.option("--vram", "vram_gib", type=float, metavar="GIB", help="Memory of one device in GiB."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu"]),
        default="auto",
        show_default=True,
        help="auto: without --vram, read the card.",
    ),
    click.option("--train", metavar="FILE", help="Training data: JSONL, CSV, Parquet, a datasets folder or a hub id."),
    click.option(
        "--columns",
        callback=pairs,
        metavar="OURS=YOURS,...",
        help="Which column holds what, for example source=dialogue,target=summary.",
    ),
    click.option("--num-examples", type=int, metavar="N", help="Training examples, where --train is not given."),
    click.option("--source-tokens", type=int, metavar="N", help="Typical tokens of an input."),
    click.option("--target-tokens", type=int, metavar="N", help="Typical tokens of an output."),
    click.option("--num-labels", type=int, metavar="N", help="Number of labels, where --train is not given."),
    click.option("--max-length", type=int, metavar="TOKENS", help="Longest input; what is longer is cut."),
    click.option("--max-target-length", type=int, metavar="TOKENS", help="Longest output."),
    click.option("--batch-size", type=int, metavar="N", help="Effective batch size.  [default: 8 a device]"),
    click.option(
        "--prefer",
        type=click.Choice(["quality", "memory", "speed", "size"]),
        default="quality",
        show_default=True,
        help="What matters most between methods of like quality.",
    ),
    click.option(
        "--must",
        callback=lambda context, parameter, value: _one_of("need", MUSTS)(context, parameter, value),
        metavar="A,B",
        help=f"Hard needs: {', '.join(MUSTS)}.",
    ),
    click.option("--max-time", metavar="TIME", help="Longest training time: 45m, 2h, 1h30m."),
    click.option("--devices", type=int, default=1, show_default=True, metavar="N", help="Number of devices."),
    click.option(
        "--sharding",
        type=click.Choice(["none", "zero1", "zero2", "zero3"]),
        default="none",
        show_default=True,
        help="What the devices share (ZeRO stages; zero3 is FSDP's full sharding).",
    ),
    click.option(
        "--trait",
        "traits",
        multiple=True,
        callback=_one_of("trait", TRAITS),
        metavar="NAME",
        help=f"What the job is like, repeatable: {', '.join(TRAITS)}.",
    ),
    click.option("--precision", type=click.Choice(["bf16", "fp16", "fp32"]), help="Force the compute precision."),
    click.option(
        "--quantization", type=click.Choice(["none", "int8", "nf4"]), help="Force how the frozen base is stored."
    ),
)


def question(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every option of a question; their names are the arguments of :func:`api.build_problem`."""
    for option in reversed(QUESTION):
        command = option(command)
    return command


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The ``--json`` flag."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def set_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The repeatable ``--set name=value`` of a method's hyperparameters."""
    return click.option(
        "--set", "settings", multiple=True, callback=pairs, metavar="NAME=VALUE", help="Set a hyperparameter."
    )(command)


def columns_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--columns`` of a command that reads data without asking a question."""
    return click.option(
        "--columns", callback=pairs, metavar="OURS=YOURS,...", help="Which column holds what, where names are unusual."
    )(command)


def adapter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--task`` and ``--model`` of a command that takes the folder of an adapter."""
    command = click.option("--model", metavar="REF", help="Where the base model lies now, if it has moved.")(command)
    return click.option("--task", metavar="NAME", help="What the adapter is for, if no run of ours wrote it.")(command)


def need_task(task: str | None) -> str:
    """``task``, or a one-line error that lists the tasks."""
    if task is None:
        raise InputError("which task? --task is missing", f"one of {', '.join(task_names())}")
    return task


def as_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :data:`QUESTION` as arguments of :func:`api.build_problem` (``none`` stays a choice)."""
    return {name: value for name, value in options.items() if value not in (None, (), {})}
