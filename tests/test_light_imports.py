"""Advice is free of the heavy packages: a newcomer gets an answer before torch would have been imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "evaluate", "datasets", "sklearn", "scipy", "pandas", "accelerate", "pyarrow"}
PROBE = """
import json, sys
from peftselect.cli import main
try:
    main(json.loads(sys.argv[1]))
finally:
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""
COMMANDS = [
    ["--help"],
    ["methods"],
    ["methods", "lora"],
    ["rules"],
    ["plugins"],
    ["doctor"],
    ["recommend", "--task", "summarization", "--vram", "4"],
    ["recommend", "--task", "classification", "--model", "roberta-base", "--vram", "8", "--json"],
    ["estimate", "--model", "flan-t5-base", "--method", "lora"],
]


def loaded(code: str, *arguments: str) -> set[str]:
    """Top-level modules in a fresh process after ``code``; its last line on stderr is their JSON list."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_that_advise_leave_the_heavy_packages_alone(command: list[str]) -> None:
    assert not loaded(PROBE, json.dumps(command)) & HEAVY


def test_importing_peftselect_is_light() -> None:
    code = "import json, sys, peftselect; print(json.dumps([n.split('.')[0] for n in sys.modules]), file=sys.stderr)"
    assert not loaded(code) & (HEAVY | {"rich", "click", "pluggy"})


def test_the_probe_sees_a_heavy_import() -> None:
    code = "import json, sys, scipy; print(json.dumps([n.split('.')[0] for n in sys.modules]), file=sys.stderr)"
    assert "scipy" in loaded(code) & HEAVY


@pytest.mark.parametrize("first", ["transformers.Trainer", "transformers.pipeline"])
def test_no_tuner_is_left_out_whatever_is_imported_first(first: str) -> None:
    """transformers imports peft in the middle of its own modules, and our tuners come with peft."""
    module = first.split(".")[0]
    script = f"import peftselect, {module}; {first}; from peftselect.tuners.channels import ChannelConfig; print('in')"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
