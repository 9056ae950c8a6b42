"""A plot of results in the terminal, and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.cli import console
from peftselect.errors import InputError
from peftselect.results import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peftselect.results_plot import Plot

WIDTH, HEIGHT = 60, 16
PICTURES = (".svg", ".png")
_BEATEN, _BEST = "·", "●"


def show(plot: Plot) -> None:
    """Draw the runs with letters on a grid, then name those on the front."""
    console.heading(plot.title)
    console.say(plot.y_title, style="dim")
    xs, ys = [dot.x for dot in plot.dots], [dot.y for dot in plot.dots]
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for dot in sorted(plot.dots, key=lambda dot: dot.best):  # the front is drawn over the others
        column, row = _place(dot.x, xs, WIDTH), HEIGHT - 1 - _place(dot.y, ys, HEIGHT)
        grid[row][column] = _BEST if dot.best else _BEATEN
    labels = {0: f"{max(ys):.4g}", HEIGHT - 1: f"{min(ys):.4g}"}
    for number, line in enumerate(grid):
        console.say(f"{labels.get(number, ''):>8} │{''.join(line).rstrip()}")
    left, right = f"{min(xs):.4g}", f"{max(xs):.4g}"
    console.say(f"{'':>8} └{'─' * WIDTH}")
    console.say(f"{'':>9} {left}{right:>{WIDTH - len(left)}}")
    console.say(f"{'':>9} {plot.x_title:^{WIDTH}}", style="dim")
    console.say()
    best = [dot for dot in plot.dots if dot.best]
    rows = [(dot.record.id, dot.record.candidate["method"], f"{dot.x:.4g}", f"{dot.y:.4g}") for dot in best]
    columns = ("id", "method", plot.x_title, plot.y_title)
    more = f"; {plot.others} more comparisons: choose with --dataset, --model, --source" if plot.others else ""
    caption = f"{_BEST} {len(best)} of {len(plot.dots)} runs that no other beats on both axes{more}"
    console.table("Pareto front", columns, rows, right=columns[2:], caption=caption, keep=("id", "method"))


def _place(value: float, values: list[float], cells: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0


def check_picture(file: Path) -> None:
    """Raise InputError for a file that is no picture we can draw."""
    if file.suffix.lower() not in PICTURES:
        raise InputError(f"{file}: a plot is written as .svg or .png", "give --output a name with one of these ends")


def write(plot: Plot, file: Path) -> None:
    """Write the plot as SVG or PNG, after the name; InputError where it cannot be written."""
    from peftselect.serving import charts

    check_picture(file)
    marks = [
        charts.Mark(dot.x, dot.y, dot.record.candidate["method"] if dot.best else "", strong=dot.best)
        for dot in plot.dots
    ]
    front = [(dot.x, dot.y) for dot in plot.dots if dot.best]
    _save(charts.standalone(charts.scatter(marks, front, plot.x_title, plot.y_title), plot.title), file)


def reliability(points: Sequence[tuple[int, float]], title: str, file: Path) -> None:
    """Write how often intervals hold (percent) over how often they say so, beside the diagonal, as SVG or PNG."""
    from peftselect.serving import charts

    check_picture(file)
    if not points:
        raise InputError("nothing was predicted that could be drawn", "leave out --plot")
    series = [("as they say", [(0.0, 0.0), (100.0, 100.0)]), ("observed", points)]
    _save(charts.standalone(charts.lines(series, "level of the interval (%)", "values inside (%)"), title), file)


def _save(drawing: str, file: Path) -> None:
    from peftselect.serving import pixels

    write_whole(file, pixels.png(drawing) if file.suffix.lower() == ".png" else drawing.encode())
