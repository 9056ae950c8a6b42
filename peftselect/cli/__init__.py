"""The command line: one module per command, imported only when the command is called."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import NoReturn

import click

from peftselect.errors import PeftSelectError
from peftselect.training.progress import hush_for_good

_NOT_COMMANDS = {"console", "options"}


class LazyGroup(click.Group):
    """A group whose commands are the modules of this package: ``foo_bar.py`` holds ``foo_bar``, run as ``foo-bar``.

    Nothing is imported until a command is called; ``--help`` reads the first line of each module's docstring.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands: the modules of this folder."""
        found = (item.name for item in pkgutil.iter_modules(__path__) if not item.name.startswith("_"))
        return sorted(name.replace("_", "-") for name in found if name not in _NOT_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"{__name__}.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peftselect")
def cli() -> None:
    """Choose a parameter-efficient fine-tuning method, know whether it fits, and run it.

    \b
    peftselect recommend --task summarization --vram 4
    peftselect run

    \b
    Shell completion (bash; zsh and fish likewise), for the shell's start-up file:
    eval "$(_PEFTSELECT_COMPLETE=bash_source peftselect)"
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; the one place where errors become text and exit codes."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words
    hush_for_good()
    try:
        outcome = cli.main(args=words, prog_name="peftselect", standalone_mode=False)
    except PeftSelectError as error:
        _report(error.message, error.hint, as_json)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        sys.exit(2)
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "peftselect"
        _report(error.format_message(), f"see `{path} --help`", as_json)
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        click.echo("stopped", err=True)
        # click wraps what interrupted it
        sys.exit(getattr(error.__cause__ or error, "exit_code", 130))
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        sys.exit(0)
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _report(message: str, hint: str, as_json: bool) -> None:
    from peftselect.training import ranks

    if not (ranks.is_first() or ranks.joined()):
        return  # all processes of a run were called alike: the first one tells
    if as_json:
        click.echo(json.dumps({"schema": 1, "error": {"message": message, "hint": hint}}))
        return
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
