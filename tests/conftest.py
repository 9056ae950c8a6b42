"""Shared fixtures: an isolated home, one CPU's worth of threads, tiny models built from configs, offline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("COLUMNS", "120")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores: more threads would only wait for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell's background job ignores Ctrl-C, and so would the runs that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the records and caches of whoever runs it."""
    home = tmp_path / "peftselect-home"
    monkeypatch.setenv("PEFTSELECT_HOME", str(home))
    return home


@pytest.fixture
def peftselect(tmp_path: Path):
    """Run the command line in a process of its own: ``peftselect("recommend", "--task", ...)``."""

    def run(*arguments: str, cwd: Path | None = None, timeout: float = 600, **environment: str):
        return subprocess.run(
            [sys.executable, "-m", "peftselect", *map(str, arguments)],
            cwd=cwd or tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory):
    """``tiny_models("t5")``: the folder of a tiny random model with its tokenizer, built once a session."""
    from tests.tiny import build

    built: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in built:
            built[kind] = build(kind, tmp_path_factory.mktemp(f"tiny-{kind}"))
        return built[kind]

    return get


def data_set(name: str) -> Path:
    """A real data set of the shared folder; the test is skipped with a reason where it is absent."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not here (looked in {DATA})")
    return folder
