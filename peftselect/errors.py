"""Errors which a user can cause: one line, a hint and an exit code each."""

from __future__ import annotations

#: more known names than this are not listed in full in a hint
LISTED_NAMES = 24


class PeftSelectError(Exception):
    """A problem that the user can mend.

    ``message`` says in one line what is wrong, ``hint`` what to do about it. ``exit_code`` is the process's exit
    status: 2 for bad input, 3 when nothing fits the budget. Anything else that escapes is a bug (1, with a traceback).
    """

    exit_code = 2
    #: what a run that ends with this error is recorded as; empty where the run was not tried at all
    run_status = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(PeftSelectError):
    """An argument, a file or a configuration that cannot be used as it is."""


class DataError(InputError):
    """A data file that cannot be used: names the file, and the line and column where they are known."""


class UnknownNameError(InputError):
    """A task, method, model, rule or trait that nobody registered."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        import difflib

        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        few = ", ".join(known[:LISTED_NAMES]) + (f", ... ({len(known)} in all)" if len(known) > LISTED_NAMES else "")
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {few}"
        super().__init__(f"unknown {kind} {name!r}", hint)
        self.known = known


class PluginError(PeftSelectError):
    """A plugin that breaks the contract in a way which cannot be worked around (a duplicate name, say)."""


class NothingFitsError(PeftSelectError):
    """No method satisfies the constraints."""

    exit_code = 3


class UnsupportedError(InputError):
    """A method that cannot serve this model or task."""
