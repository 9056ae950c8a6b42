"""Run every `console`, `python` and `toml` block of the documents.

The convention:

- A fenced `console` block shows lines that begin with `$ `, each followed by the output which is expected of it. `...`
  in an expected line matches anything within a line; a line of `...` alone matches any lines. Runs of blanks count as
  one and trailing blanks do not count. A command with no output below it must only succeed; one whose output begins
  with `error: ` must fail, and one that is followed by `[exit 3]` must exit with 3. A command may go on over a line
  that ends in a backslash. The blocks of one document run in one temporary folder, in order, so that a later one sees
  the files which an earlier one wrote. `peftselect` and `python` are this checkout's; there is no hub.
- A `python` block runs in a process of its own in that folder; what it prints is compared with the `text` block that
  follows it at once, if one does.
- A `toml` block must parse. In `rules/README.md` its rules are also checked with `peftselect rules check`.
- A line `` `NAME`: `` before a block makes it the file NAME, which is written into the folder first (not run).
- `<!-- test: data -->` is slow, too, and needs the sample data sets beside this checkout, which it sees as `data`.
- `<!-- test: slow -->` on the line before a block puts it into the slow tier (minutes); `<!-- test: network -->` (needs
  a hub or an index) checks the options of its `peftselect` commands against `--help` and runs nothing, and so does
  `<!-- test: syntax -->` (would change this machine: virtual environments, installations).
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import DATA, ROOT
from tests.documents import Block, blocks, read

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "plugins/README.md", "rules/README.md", "benchmarks/README.md"]
#: the port that documents show; a free one takes its place, since another program may listen there
SHOWN_PORT = "8123"
TIERS = {"", "slow", "data", "network", "syntax"}


@dataclass(frozen=True)
class Command:
    """A shown command with the output shown below it."""

    text: str
    output: str
    exit_code: int | None

    def succeeded(self, code: int) -> bool:
        """Whether the exit code is the one that the document leads to expect."""
        if self.exit_code is not None:
            return code == self.exit_code
        return (code != 0) == self.output.startswith("error: ")


def commands(body: str) -> list[Command]:
    """The commands of a console block."""
    made: list[Command] = []
    text, output = "", []
    for line in [*body.replace("\\\n", " ").splitlines(), "$ "]:
        if line.startswith("$ "):
            if text:
                code = re.fullmatch(r"\[exit (\d+)\]", output[-1]) if output else None
                shown = "\n".join(output[:-1] if code else output).strip("\n")
                made.append(Command(text, shown, int(code[1]) if code else None))
            text, output = line[2:].strip(), []
        else:
            output.append(line)
    return made


def matches(expected: str, actual: str) -> bool:
    """Whether the output is the expected one, where ``...`` matches anything."""
    parts = []
    for line in (_plain(line) for line in expected.splitlines()):
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(line).replace(re.escape("..."), ".*") + r"\n")
    text = "".join(_plain(line) + "\n" for line in actual.strip("\n").splitlines())
    return re.fullmatch("".join(parts), text) is not None


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


BLOCKS = [block for document in DOCUMENTS for block in read(document)]
RUNNABLE = [block for block in BLOCKS if block.language in {"console", "python"} and not block.file]


@pytest.fixture(scope="module")
def workplaces(tmp_path_factory: pytest.TempPathFactory):
    """A temporary folder for each document, with the files it defines."""
    made: dict[str, Path] = {}

    def get(document: str) -> Path:
        if document not in made:
            made[document] = tmp_path_factory.mktemp("docs")
            for block in read(document):
                if block.file:
                    target = made[document] / block.file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(block.body, encoding="utf-8")
        return made[document]

    return get


def environment(folder: Path) -> dict[str, str]:
    """This checkout's ``peftselect`` and ``python`` first on the path, no hub, a home of its own."""
    scripts = folder / ".bin"
    if not scripts.is_dir():  # never written twice: a command in the background may be about to start from it
        scripts.mkdir()
        for name, rest in (("peftselect", " -m peftselect"), ("python", "")):
            (scripts / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{rest} "$@"\n')
            (scripts / name).chmod(0o755)
    own = {"PATH": f"{scripts}:{os.environ['PATH']}", "PEFTSELECT_HOME": str(folder / ".home"), "COLUMNS": "100"}
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **own}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def logs(folder: Path) -> str:
    """The ends of the text files in a folder: what commands in the background said."""
    return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.txt"))


def run_console(block: Block, folder: Path) -> None:
    """Run a console block and compare what it says."""
    port = str(free_port())
    for command in commands(block.body):
        done = subprocess.run(
            ["bash", "-c", command.text.replace(SHOWN_PORT, port)],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert command.succeeded(done.returncode), (
            f"{block}: $ {command.text}\nexit {done.returncode}\n{said}\n{logs(folder)}"
        )
        if command.output:
            shown = done.stdout if matches(command.output, done.stdout) else said
            assert matches(command.output, shown), f"{block}: $ {command.text}\n{said}\nis not\n{command.output}"


def run_python(block: Block, folder: Path) -> None:
    """Run a python block and compare what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", block.body],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    if block.expected is not None:
        assert matches(block.expected.strip("\n"), done.stdout), f"{block}\n{done.stdout}\nis not\n{block.expected}"


def check_options(text: str) -> None:
    """Check the options of every ``peftselect`` command in a shell line against the commands' own parameters."""
    import click

    from peftselect.cli import cli

    for words in _simple_commands(text):
        if Path(words[0]).name != "peftselect":
            continue
        if len(words) < 2 or words[1].startswith("-"):
            continue
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None, f"no such command: {text}"
        while isinstance(command, click.Group) and len(words) > 2 and not words[2].startswith("-"):
            words = words[1:]
            command = command.get_command(click.Context(command), words[1])
            assert command is not None, f"no such command: {text}"
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word.split("=")[0] for word in words[2:] if word.startswith("-")} - known - {"-h", "--help"}
        assert not unknown, f"unknown options {sorted(unknown)} in: {text}"


def _simple_commands(text: str) -> Iterator[list[str]]:
    words: list[str] = []
    for word in [*shlex.split(text, comments=True), ";"]:
        if word in {"&&", "||", "|", ";"}:
            if words:
                yield words
            words = []
        else:
            words.append(word)


@pytest.mark.parametrize("block", [block for block in RUNNABLE if not block.tier], ids=str)
def test_blocks_do_what_they_show(block: Block, workplaces) -> None:
    _run(block, workplaces(block.document))


@pytest.mark.slow
@pytest.mark.parametrize("document", dict.fromkeys(block.document for block in RUNNABLE if block.tier == "slow"))
def test_slow_blocks_do_what_they_show(document: str, workplaces) -> None:
    # one test a document: later blocks use what earlier ones trained, whichever process runs which test
    for block in RUNNABLE:
        if (block.document, block.tier) == (document, "slow"):
            _run(block, workplaces(document))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data sets are not on this machine")
@pytest.mark.parametrize("block", [block for block in RUNNABLE if block.tier == "data"], ids=str)
def test_blocks_on_sample_data_do_what_they_show(block: Block, workplaces) -> None:
    folder = workplaces(block.document)
    (folder / "data").symlink_to(DATA)
    try:
        _run(block, folder)
    finally:
        (folder / "data").unlink()


def _run(block: Block, folder: Path) -> None:
    if block.language == "console":
        run_console(block, folder)
    else:
        run_python(block, folder)


@pytest.mark.parametrize("block", [block for block in RUNNABLE if block.tier in {"network", "syntax"}], ids=str)
def test_blocks_that_cannot_run_here_are_well_formed(block: Block) -> None:
    if block.language == "python":
        compile(block.body, str(block), "exec")
        return
    shown = commands(block.body)
    assert shown
    for command in shown:
        subprocess.run(["bash", "-n", "-c", command.text], check=True)
        check_options(command.text)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=str)
def test_toml_blocks_parse_and_rules_pass_their_own_cases(block: Block, tmp_path: Path) -> None:
    table = tomllib.loads(block.body)
    assert table
    if "rule" in table:
        (tmp_path / "shown.toml").write_text(block.body, encoding="utf-8")
        run_console(Block(str(block), 0, "console", "$ peftselect rules check shown.toml\n"), tmp_path)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if (ROOT / name).exists()])
def test_every_fence_of_a_document_is_seen(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = read(document)
    assert found or "```" not in text
    assert text.count("\n```") % 2 == 0
    shown = sum(2 if block.expected is not None else 1 for block in found)
    assert shown == text.count("\n```") // 2
    assert {block.tier for block in found} <= TIERS
    assert all(block.language for block in found), "a fence without a language is run by nobody"


def test_there_are_blocks_to_run() -> None:
    assert len(RUNNABLE) >= 3


def test_the_harness_sees_what_is_wrong(tmp_path: Path) -> None:
    text = "```console\n$ echo one two\none ...\n$ exit 3\n[exit 3]\n$ echo 'error: x'; false\nerror: x\n```\n"
    (block,) = blocks("x.md", text)
    run_console(block, tmp_path)
    for wrong in ("```console\n$ echo one\ntwo\n```", "```console\n$ false\n```", "```console\n$ true\n[exit 2]\n```"):
        with pytest.raises(AssertionError):
            run_console(blocks("x.md", wrong)[0], tmp_path)
    (shown,) = blocks("x.md", "<!-- test: slow -->\n```python\nprint(1)\n```\n\n```text\n2\n```\n")
    assert shown.tier == "slow"
    with pytest.raises(AssertionError):
        run_python(shown, tmp_path)
    with pytest.raises(AssertionError, match="unknown options"):
        check_options("peftselect recommend --no-such-option 3 && true")
    with pytest.raises(AssertionError, match="no such command"):
        check_options("true | peftselect recomend")
    check_options("cd x && .venv/bin/peftselect recommend --task summarization --vram 4")


def test_ellipsis_and_blanks_match_as_documented() -> None:
    assert matches("a ... d\n...\nlast", "a  b c d \nx\n\ny\nlast\n")
    assert matches("...", "")
    assert not matches("a\nb", "a\nc")
    assert not matches("a", "a\nb")
    assert matches("cost (1.5)", "cost (1.5)") and not matches("1.5", "125")
