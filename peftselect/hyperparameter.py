"""One setting of a method: its type, default, range, and how a user's text becomes its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

#: models up to this width take a method's rate for narrow ones
NARROW = 1024


@dataclass(frozen=True)
class Hyperparameter:
    """One setting of a method: its default and the range worth searching.

    ``kind`` is one of "int", "float", "bool", "str", "list" (of str). Values outside ``low``..``high`` or ``choices``
    are refused, so the range must cover everything that works, not only what is usual.
    """

    name: str
    default: Any
    kind: Literal["int", "float", "bool", "str", "list"]
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    search: tuple[Any, ...] = ()
    log: bool = False

    def parse(self, raw: Any) -> Any:
        """Turn a command-line string (or a JSON value) into this hyperparameter's value, or raise InputError."""
        try:
            value = self._convert(raw)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise InputError(
                f"{self.name}={raw!r} is not {_ARTICLES[self.kind]}", f"{self.name}: {self.help}"
            ) from error
        if self.choices and value not in self.choices:
            raise InputError(f"{self.name}={raw!r} is not a choice", f"choose from {', '.join(map(str, self.choices))}")
        if self.low is not None and self.high is not None and value is not None and not self.low <= value <= self.high:
            raise InputError(f"{self.name}={raw!r} is out of range", f"{self.name} lies in {self.low:g}..{self.high:g}")
        return value

    def _convert(self, raw: Any) -> Any:
        if raw is None:
            return None
        if self.kind == "bool":
            return _BOOLEANS[str(raw).lower()]
        if self.kind == "list":
            return tuple(raw.split(",")) if isinstance(raw, str) else tuple(raw)
        if self.kind == "int" and float(raw) != int(float(raw)):
            raise ValueError(raw)
        converters: dict[str, Callable[[Any], Any]] = {"int": lambda text: int(float(text)), "float": float, "str": str}
        return converters[self.kind](raw)


_ARTICLES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def learning_rate_setting(width: int, rate: float, narrow_rate: float | None = None) -> Hyperparameter:
    """The peak learning rate: ``rate`` by default, ``narrow_rate`` in models up to 1,024 wide."""
    default = narrow_rate if narrow_rate and width <= NARROW else rate
    return Hyperparameter("learning_rate", default, "float", "peak learning rate", 1e-6, 1.0, log=True)
