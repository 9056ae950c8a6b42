"""Numbers in words that people read: memory, counts of parameters, lengths of time."""

from __future__ import annotations


def size(amount_bytes: float) -> str:
    """Bytes for people: ``12 KiB``, ``6.75 MiB``, ``2.93 GiB``."""
    for unit, scale in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if abs(amount_bytes) >= scale:
            return f"{_three_digits(amount_bytes / scale)} {unit}"
    return f"{amount_bytes:.0f} B"


def count(number: int) -> str:
    """A number of parameters: exact below ten million (``1,769,472``), then ``248 M``, ``7.24 B``."""
    if number < 10_000_000:
        return f"{number:,}"
    if number >= 1_000_000_000:
        return f"{_three_digits(number / 1e9)} B"
    return f"{_three_digits(number / 1e6)} M"


def span(seconds: float) -> str:
    """A length of time: ``45 s``, ``12 min``, ``3.5 h``, ``9 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.2g} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def milliseconds(seconds: float) -> str:
    """A short time: ``9.37 ms``."""
    return f"{1000 * seconds:,.3g} ms"


def energy(kilowatt_hours: float) -> str:
    """Energy of a run: ``0.214 Wh``."""
    return f"{1000 * kilowatt_hours:,.3g} Wh"


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def article(noun: str) -> str:
    """``noun`` with the indefinite article before it, by its first letter."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"
