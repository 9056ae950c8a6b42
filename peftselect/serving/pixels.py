"""A drawing of :mod:`peftselect.serving.charts` as PNG: lines, circles, boxes and text, without a graphics library."""

from __future__ import annotations

import re
import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from peftselect.serving.glyphs import HEIGHT, WIDTH, glyph

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: pixels for one unit of the drawing
SCALE = 2
_SVG = "{http://www.w3.org/2000/svg}"
_COLOURS = {
    "grid": (221, 221, 221), "front": (153, 153, 153), "dot": (42, 111, 151), "strong": (200, 85, 61),
    "line": (42, 111, 151),
}  # fmt: skip
_INK, _PAGE = (34, 34, 34), (255, 255, 255)
Colour = tuple[int, int, int]


def png(drawing: str) -> bytes:
    """The bytes of a PNG of a standalone SVG drawing, white behind it, two pixels a unit."""
    # our own drawing, so there is nothing to guard against in it
    root = ElementTree.fromstring(drawing)
    left, top, width, height = (float(part) for part in root.attrib["viewBox"].split())
    canvas = _Canvas(round(width * SCALE), round(height * SCALE), left, top)
    for item in root.iter():
        kind = item.tag.removeprefix(_SVG)
        if kind == "line":
            canvas.line((_at(item, "x1"), _at(item, "y1")), (_at(item, "x2"), _at(item, "y2")), _colour(item))
        elif kind == "polyline":
            points = [tuple(map(float, pair.split(","))) for pair in item.attrib["points"].split()]
            for start, end in pairwise(points):
                canvas.line((start[0], start[1]), (end[0], end[1]), _colour(item))
        elif kind == "circle":
            hollow = "weak" in item.attrib["class"].split()
            canvas.circle(_at(item, "cx"), _at(item, "cy"), _at(item, "r"), _colour(item), hollow=hollow)
        elif kind == "text":
            canvas.text(_at(item, "x"), _at(item, "y"), item.text or "", item.attrib.get("text-anchor", "start"))
    return canvas.png()


def _at(item: ElementTree.Element, name: str) -> float:
    return float(item.attrib[name])


def _colour(item: ElementTree.Element) -> Colour:
    """The colour of the last of an element's classes that has one, as a style sheet would choose."""
    known = [_COLOURS[name] for name in re.split(r"\s+", item.attrib.get("class", "")) if name in _COLOURS]
    return known[-1] if known else _INK


class _Canvas:
    """Pixels to draw on, in the drawing's own coordinates."""

    def __init__(self, width: int, height: int, left: float, top: float) -> None:
        self.pixels: NDArray[np.uint8] = np.full((height, width, 3), 255, dtype=np.uint8)
        self.left, self.top = left, top

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: Colour) -> None:
        (x1, y1), (x2, y2) = self._to_pixels(*start), self._to_pixels(*end)
        steps = int(max(abs(x2 - x1), abs(y2 - y1))) + 1
        for x, y in zip(np.linspace(x1, x2, steps), np.linspace(y1, y2, steps), strict=True):
            self._box(round(x), round(y), SCALE, SCALE, colour)

    def circle(self, x: float, y: float, radius: float, colour: Colour, *, hollow: bool) -> None:
        across, up = self._to_pixels(x, y)
        rows, columns = np.ogrid[: self.pixels.shape[0], : self.pixels.shape[1]]
        distance = np.hypot(columns - across, rows - up)
        self.pixels[distance <= radius * SCALE] = colour
        if hollow:
            self.pixels[distance <= (radius - 1.5) * SCALE] = _PAGE

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        across, up = self._to_pixels(x, y)
        length = len(text) * (WIDTH + 1) * SCALE
        start = round(across) - {"middle": length // 2, "end": length}.get(anchor, 0)
        for number, letter in enumerate(text):
            for row, bits in enumerate(glyph(letter)):
                for column in range(WIDTH):
                    if bits >> (WIDTH - 1 - column) & 1:
                        at = start + (number * (WIDTH + 1) + column) * SCALE
                        self._box(at, round(up) - (HEIGHT - row) * SCALE, SCALE, SCALE, _INK)

    def png(self) -> bytes:
        """Eight bits a channel, no filter, one stream (PNG specification, sections 5 and 11)."""
        height, width, _ = self.pixels.shape
        rows = np.hstack([np.zeros((height, 1), np.uint8), self.pixels.reshape(height, width * 3)])
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
            for name, content in parts
        )

    def _to_pixels(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.left) * SCALE, (y - self.top) * SCALE

    def _box(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        self.pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = colour
