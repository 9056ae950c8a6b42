"""Predicted against measured memory as a picture: an SVG written by hand, no plotting library needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from xml.sax.saxutils import escape

GIB = 2**30
SIDE, MARGIN = 560, 70


def scatter(points: Mapping[str, tuple[float, float]], named: Collection[str] = ()) -> str:
    """A square picture of (measured, predicted) bytes, the diagonal, and a band of 5 % about it.

    Points in ``named`` carry their name; every point tells its own when it is pointed at.
    """
    values = [value / GIB for pair in points.values() for value in pair]
    low, high = int(min(values)) // 2 * 2, -(-int(max(values) + 1) // 2) * 2
    scale = (SIDE - 2 * MARGIN) / (high - low)

    def x(gib: float) -> float:
        return round(MARGIN + (gib - low) * scale, 1)

    def y(gib: float) -> float:
        return round(SIDE - MARGIN - (gib - low) * scale, 1)

    band = [(low, low * 0.95), (high, high * 0.95), (high, high * 1.05), (low, low * 1.05)]
    corners = " ".join(f"{x(across)},{y(up)}" for across, up in band)
    frame = f'x="{x(low)}" y="{y(high)}" width="{x(high) - x(low)}" height="{y(low) - y(high)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}" font-family="sans-serif" font-size="12">',
        f'<rect width="{SIDE}" height="{SIDE}" fill="white"/>',
        f'<clipPath id="frame"><rect {frame}/></clipPath>',
        f'<polygon points="{corners}" fill="#e8eef6" clip-path="url(#frame)"/>',
        f'<line x1="{x(low)}" y1="{y(low)}" x2="{x(high)}" y2="{y(high)}" stroke="#7a8ba3"/>',
        f'<rect {frame} fill="none" stroke="#444"/>',
    ]
    for tick in range(low, high + 1, 2):
        parts.append(f'<text x="{x(tick)}" y="{y(low) + 18}" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="{x(low) - 8}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>')
    middle = SIDE / 2
    parts.append(f'<text x="{middle}" y="{SIDE - 22}" text-anchor="middle">measured, GiB reserved</text>')
    parts.append(
        f'<text x="20" y="{middle}" text-anchor="middle" transform="rotate(-90 20 {middle})">predicted, GiB</text>'
    )
    parts.append(f'<text x="{middle}" y="40" text-anchor="middle">band: 5 %</text>')
    for name, (measured, predicted) in points.items():
        across, up = x(measured / GIB), y(predicted / GIB)
        title = f"<title>{escape(name)}</title>"
        parts.append(f'<circle cx="{across}" cy="{up}" r="4" fill="#c0392b" fill-opacity="0.7">{title}</circle>')
    taken: list[float] = []
    for name in sorted(named, key=lambda one: -points[one][1] if one in points else 0):
        if name not in points:
            continue
        measured, predicted = points[name]
        height = y(predicted / GIB) + 4
        while any(abs(height - other) < 14 for other in taken):
            height += 2
        taken.append(height)
        before = measured / GIB > (low + high) / 2
        across = x(measured / GIB) + (-8 if before else 8)
        anchor = "end" if before else "start"
        short = escape(name.replace("--llama-3.2-3B", ""))
        parts.append(f'<text x="{across}" y="{height}" text-anchor="{anchor}" font-size="10">{short}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
