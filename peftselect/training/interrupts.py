"""Ctrl-C and SIGTERM: the first asks training to save and stop, the next one stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupted(KeyboardInterrupt):
    """The run was told to stop. ``exit_code`` is what shells expect: 128 and the signal's number."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.exit_code = 128 + number


class Stopper:
    """Whether the run was asked to stop. ``gentle`` is True while someone looks at ``asked`` between steps."""

    def __init__(self) -> None:
        self.gentle = False
        self.asked: int | None = None

    def receive(self, number: int, frame: Any = None) -> None:
        """A signal has come."""
        if not self.gentle or self.asked is not None:
            raise Interrupted(number)
        self.asked = number

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """While training looks: signals wait for the end of a step."""
        self.gentle = True
        try:
            yield
        finally:
            self.gentle = False

    def check(self) -> None:
        """Stop here, if that was asked for."""
        if self.asked is not None:
            raise Interrupted(self.asked)


@contextlib.contextmanager
def listening() -> Iterator[Stopper]:
    """A :class:`Stopper` that hears SIGINT and SIGTERM (in the main thread; elsewhere nobody can)."""
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # whoever started us wants it ignored
            signal.signal(number, stopper.receive)
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
