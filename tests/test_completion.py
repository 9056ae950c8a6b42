"""Shell completion, as the shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from peftselect.plugin_manager import host


def completions(words: str) -> list[str]:
    """What bash would offer after ``words``."""
    asked = {
        "_PEFTSELECT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "import sys; sys.argv[0] = 'peftselect'; from peftselect.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("peftselect rec", ["recommend"]),
        ("peftselect recommend --task summ", ["summarization"]),
        ("peftselect recommend --prefer s", ["speed", "size"]),
        ("peftselect methods prompt", ["prompt_tuning"]),
        ("peftselect recommend --model flan-t5-b", ["flan-t5-base"]),
    ],
)
def test_names_are_completed(words: str, expected: list[str]) -> None:
    assert completions(words) == expected


def test_every_method_is_offered() -> None:
    assert sorted(completions("peftselect methods ")) == sorted(host().entries())
    runnable = [*host().methods(), *host().baselines()]
    assert sorted(completions("peftselect run --method ")) == sorted(runnable)


def test_the_help_says_how_to_switch_it_on(peftselect) -> None:
    assert 'eval "$(_PEFTSELECT_COMPLETE=bash_source peftselect)"' in peftselect("--help").stdout
