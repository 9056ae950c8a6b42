"""Charts as SVG, inline or standing alone: lines over steps, points on two axes, bars.

Inline the colours are the page's own variables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 30, 44
#: room that a letter and a line of a label take, in the larger type of a phone
LETTER, LINE = 10, 18
Point = tuple[float, float]
#: from and to on the x axis, and the middle on the y axis
Place = tuple[float, float, float]
#: for drawings outside a page
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.page{fill:#fff}.grid{stroke:#ddd}.line{fill:none;stroke:#2a6f97;"
    "stroke-width:2}.front{stroke:#999;stroke-dasharray:4 4}.dot{fill:#2a6f97}"
    ".weak{fill:#fff;stroke:#2a6f97;stroke-width:2}.strong{fill:#c8553d}"
)


@dataclass(frozen=True)
class Mark:
    """A labelled point; ``strong`` ones are filled."""

    x: float
    y: float
    label: str
    strong: bool = False


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, both ways linear."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range, about five."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(step * many for many in (1, 2, 5, 10) if (self.high - self.low) / (step * many) <= 6)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def lines(series: Sequence[tuple[str, Sequence[Point]]], x_title: str, y_title: str) -> str:
    """One line a series; several are named at their ends."""
    points = [point for _, item in series for point in item]
    across, up = _scales(points)
    drawn = [_axes(across, up, x_title, y_title)]
    for number, (name, item) in enumerate(series):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in item)
        drawn.append(f'<polyline class="line series{number}" points="{path}"/>')
        for x, y in item if len(item) <= 20 else ():
            drawn.append(f'<circle class="dot series{number}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>')
        last = item[-1]
        if len(series) > 1:  # one line is named by its axis
            drawn.append(_text(across(last[0]) - 4, up(last[1]) - 8, name, "end"))
    return _svg(drawn, f"{y_title} over {x_title}")


def scatter(marks: Sequence[Mark], front: Sequence[Point], x_title: str, y_title: str) -> str:
    """Points, and a stepped line through those that nothing beats on both axes.

    Labels stand beside their points where there is room: strong points come first, then the front. All are titles, too.
    """
    across, up = _scales([(mark.x, mark.y) for mark in marks])
    drawn = [_axes(across, up, x_title, y_title)]
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in front)
    drawn.append(f'<polyline class="line front" points="{path}"/>')
    for mark in marks:
        x, y = across(mark.x), up(mark.y)
        kind = "strong" if mark.strong else "weak"
        drawn.append(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(mark.label)}</title>')
        drawn.append("</circle>")
    best = set(front)
    points = [(across(mark.x) - 6, across(mark.x) + 6, up(mark.y)) for mark in marks]
    taken: list[Place] = []
    for mark in sorted(marks, key=lambda item: (not item.strong, (item.x, item.y) not in best)):
        places = _places(across(mark.x), up(mark.y), LETTER * len(mark.label))
        free = (one for one in places if _is_free(one, taken, LINE) and _is_free(one, points, LINE * 0.7))
        place = next(free, None)
        if place is not None:
            taken.append(place)
            left = place[0] < across(mark.x)
            drawn.append(_text(place[left], place[2] + 4, mark.label, "end" if left else "start"))
    return _svg(drawn, f"{y_title} against {x_title}")


def _places(x: float, y: float, width: float) -> list[Place]:
    """Where a label may stand about its point: at the side that has more room first, and level with it."""
    sides = (x + 8, x - 8 - width) if x < WIDTH * 0.75 else (x - 8 - width, x + 8)
    every = [
        (start, start + width, y + up)
        for up in (0, -0.8 * LINE, 0.8 * LINE, -1.7 * LINE, 1.7 * LINE)
        for start in sides
    ]
    return [place for place in every if place[0] >= LEFT and place[1] <= WIDTH and TOP - 8 < place[2] < HEIGHT - BOTTOM]


def _is_free(place: Place, taken: Sequence[Place], apart: float) -> bool:
    start, end, y = place
    return all(start > other_end or end < other or abs(y - at) > apart for other, other_end, at in taken)


def bars(items: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: name, amount, and the amount in words."""
    longest = max((amount for _, amount, _ in items), default=1.0) or 1.0
    drawn = []
    for number, (name, amount, words) in enumerate(items):
        y = 8 + number * 40
        width = (WIDTH - 360) * amount / longest
        drawn.append(_text(0, y + 18, name, "start"))
        drawn.append(f'<rect class="bar series{number}" x="230" y="{y}" width="{width:.1f}" height="26"/>')
        drawn.append(_text(236 + width, y + 18, words, "start"))
    return _svg(drawn, ", ".join(f"{name}: {words}" for name, _, words in items), height=16 + 40 * len(items))


def standalone(drawing: str, title: str) -> str:
    """A drawing as a file of its own: with its name space, colours, a background and a title above it."""
    inside = drawing.partition(">")[2].removesuffix("</svg>")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -24 {WIDTH} {HEIGHT + 24}" width="{2 * WIDTH}">'
    page = f'<rect class="page" x="0" y="-24" width="{WIDTH}" height="{HEIGHT + 24}"/>'
    return f"{head}<style>{_STYLE}</style>{page}{_text(4, -8, title, 'start')}{inside}</svg>\n"


def _scales(points: Sequence[Point]) -> tuple[_Scale, _Scale]:
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return _Scale(*_range(xs), LEFT, WIDTH - RIGHT), _Scale(*_range(ys), HEIGHT - BOTTOM, TOP)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _axes(across: _Scale, up: _Scale, x_title: str, y_title: str) -> str:
    drawn = []
    for value in up.ticks():
        y = up(value)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(_text(LEFT - 8, y + 4, f"{value:.4g}", "end"))
    drawn += [_text(across(value), HEIGHT - BOTTOM + 18, f"{value:,.6g}", "middle") for value in across.ticks()]
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_title, "middle"))
    drawn.append(_text(4, 12, y_title, "start"))
    return "".join(drawn)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(drawn: Sequence[str], title: str, height: int = HEIGHT) -> str:
    inside = "".join(drawn)
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{inside}</svg>'
