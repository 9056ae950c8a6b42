"""The one room that writes to the terminal with rich; commands hand it plain values."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rich import box
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.progress import TaskID


def console(*, stderr: bool = False) -> Console:
    """A console on stdout (or stderr); 100 columns wide when the output is no terminal, so that pipes are stable."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else int(os.environ.get("COLUMNS", "100"))
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def width() -> int:
    """Columns of the terminal."""
    return console().width


def print_json(document: Any) -> None:
    """Print ``document`` as indented JSON and nothing else."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def say(text: str = "", style: str = "") -> None:
    """Print one line of plain text (markup is not interpreted)."""
    console().print(Text(text, style=style))


def line(text: Text) -> None:
    """Print one line that is styled already (a bar, say)."""
    console().print(text)


def note(text: str) -> None:
    """Print one line to stderr: progress and asides, which must not spoil a pipe."""
    console(stderr=True).print(Text(text, style="dim"), soft_wrap=True)


def command(text: str) -> None:
    """Print a command to paste, unwrapped, whatever the width."""
    sys.stdout.write(text + "\n")


def heading(text: str) -> None:
    """Print a heading."""
    console().print(Text(text, style="bold"))


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
    caption: str = "",
    groups: Sequence[object] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print a table; columns named in ``right`` are aligned right, those in ``keep`` are never wrapped.

    ``groups`` has a mark for each row: a line is drawn where it changes.
    """
    grid = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        caption=caption or None,
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        grid.add_column(name, justify=justify, overflow="fold", no_wrap=name in keep)
    for number, row in enumerate(rows):
        if number and groups and groups[number] != groups[number - 1]:
            grid.add_section()
        grid.add_row(*("" if cell is None else Text(str(cell)) if not isinstance(cell, Text) else cell for cell in row))
    console().print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print name and value pairs in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value if isinstance(value, Text) else Text(str(value)))
    console().print(grid)


def panel(text: str, title: str) -> None:
    """Print text in a box."""
    console().print(Panel(Text(text), title=title, title_align="left", expand=False))


def bar(parts: Sequence[tuple[str, float, str]], total: float, width: int = 60) -> Text:
    """A stacked bar: (label, amount, colour) parts scaled to ``total``, and what they leave of it."""
    text, end, drawn = Text(), 0.0, 0
    for _, amount, colour in parts:
        end += amount
        until = round(width * end / total) if total else 0
        text.append("█" * (until - drawn), style=colour)
        drawn = until
    text.append("░" * (width - drawn), style="dim")
    return text


def styled(text: str, style: str) -> Text:
    """A cell or value in a colour."""
    return Text(text, style=style)


def is_terminal() -> bool:
    """Whether someone watches stderr."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def waiting(text: str, *, quiet: bool = False) -> Iterator[None]:
    """While a job of seconds is done: a spinner on stderr, or one plain line where that is no terminal."""
    errors = console(stderr=True)
    if quiet or not errors.is_terminal:
        if not quiet:
            note(f"{text} ...")
        yield
        return
    with errors.status(Text(text, style="dim")):
        yield


class Stages:
    """The parts of a long job on stderr: a line each, and on a terminal a bar that goes when the part is done."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}", style="dim"),
        )  # fmt: skip
        self._console = console(stderr=True)
        self._progress = Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        """A new part begins."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None
        self._console.print(Text(text, style="dim"), soft_wrap=True)

    def progress(self, done: int, total: int, text: str = "") -> None:
        """How far the part is."""
        if self._bar is None:
            self._bar = self._progress.add_task("  ", total=total, text=text)
        self._progress.update(self._bar, completed=done, total=total, text=text)


class RunTable:
    """The runs of a suite on stderr: on a terminal a table, with those going on and the last that ended.

    Elsewhere a line for each that ends.
    """

    SHOWN = 8
    _STYLES: ClassVar = {"running": "cyan", "ok": "green", "recorded before": "dim"}

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._console = console(stderr=True)
        self._going: dict[str, tuple[str, str, float]] = {}
        self._ended: list[tuple[str, str, str, str, str]] = []
        self._counts: Counter[str] = Counter()
        self._live = Live(console=self._console, refresh_per_second=2, get_renderable=self._draw)

    def __enter__(self) -> RunTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def began(self, key: str, about: str, placed: str = "") -> None:
        """A run begins; ``placed`` says with what."""
        self._going[key] = (about, placed, time.monotonic())

    def ended(self, key: str, about: str, status: str, score: str, because: str) -> None:
        """A run has ended, or was there before."""
        _, _, began = self._going.pop(key, ("", "", None))
        took = "" if began is None else f"{time.monotonic() - began:.0f} s"
        self._counts[status] += 1
        self._ended.append((key, about, status, because or score, took))
        if not self._console.is_terminal:
            tail = f": {because}" if because else f" {score} {took}".rstrip()
            note(f"{len(self._ended)}/{self._total} {key} {status}{tail}")

    def _draw(self) -> Table:
        title = f"{self._title}: {len(self._ended)} of {self._total}"
        counts = ", ".join(f"{number} {status}" for status, number in self._counts.items())
        grid = Table(title=title, title_justify="left", caption=counts, caption_justify="left", box=box.SIMPLE_HEAD)
        for name in ("run", "arguments", "status", "score", "time"):
            grid.add_column(name, no_wrap=name != "arguments", overflow="ellipsis")
        now = time.monotonic()
        rows = self._ended[-self.SHOWN :]
        for key, (about, placed, began) in self._going.items():
            rows.append((key, about, "running", placed, f"{now - began:.0f} s"))
        for key, about, status, score, took in rows:
            shown = Text(status, style=self._STYLES.get(status, "red"))
            grid.add_row(Text(key), Text(about), shown, Text(score), Text(took))
        return grid
