"""The `htdemucs` command."""

import atexit
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from htdemucs.cli.batch import batch
from htdemucs.cli.bench import bench
from htdemucs.cli.convert import convert
from htdemucs.cli.evaluate import evaluate
from htdemucs.cli.export import export
from htdemucs.cli.listeners import only_json, wants_json
from htdemucs.cli.live import live
from htdemucs.cli.models import models
from htdemucs.cli.options import command, in_flags
from htdemucs.cli.separate import separate
from htdemucs.cli.serve import serve
from htdemucs.cli.stream import stream
from htdemucs.cli.trace import trace
from htdemucs.cli.train import train
from htdemucs.errors import HTDemucsError
from htdemucs.events import Failed, Listener, Noted
from htdemucs.version import __version__


class _Commands(TyperGroup):
    """The commands, with a hint if a song stands in the place of a command."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run a command line; if it asks for JSON lines, whatever happens is one of them."""
        words = settings.get("args") or (arguments[0] if arguments else sys.argv[1:])
        if not wants_json(words):
            return super().main(*arguments, **settings)
        with only_json() as lines:
            settings |= {"standalone_mode": False}
            run = partial(super().main, *arguments, **settings)
            lines.exit_code = _exit_code(run, lines)
        sys.exit(lines.exit_code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names."""
        word = args[0]
        if self.get_command(ctx, word) is None and ("." in word or Path(word).exists()):
            ctx.fail(f"{word!r} is no command; try: htdemucs separate {shlex.join(args)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="htdemucs",
    cls=_Commands,
    help="Split songs into drums, bass, other and vocals with Hybrid Transformer Demucs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, because importing Rich is slow
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    separate, stream, live, batch, serve, evaluate, models, convert, export, trace, bench, train,
)  # fmt: skip
for function in COMMANDS:
    app.command()(command(function))


def _exit_code(run: Callable[[], int | None], tell: Listener) -> int:
    """Return the exit code of a command; if it fails, tell why."""
    try:
        return run() or 0
    except SystemExit as ending:  # a signal
        return ending.code if isinstance(ending.code, int) else 1
    except HTDemucsError as error:
        tell(Failed(None, str(error)))
    except Exception as error:
        if explain := getattr(error, "format_message", None):  # the command's words make no sense
            tell(Failed(None, " ".join(explain().split())))
            return int(getattr(error, "exit_code", 2))
        for line in "".join(traceback.format_exception(error)).splitlines():
            tell(Noted(line))
        tell(Failed(None, f"unexpected {type(error).__name__} ({error}); please report it"))
    return 1


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"htdemucs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Handle the options before the command."""


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {in_flags(str(message))}", file=sys.stderr)


def main() -> None:
    """Run the command; an expected failure ends it with one line and exit code 1."""
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal cannot show every file name
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = _print_warning
    try:
        app()
    except HTDemucsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)


def run() -> NoReturn:
    """Run the command as a process of its own, and exit without freeing memory.

    Python would free the network's memory piece by piece, which takes a quarter of a second.
    """
    code: int | str | None = 0
    try:
        signal.signal(signal.SIGINT, _stop)
        main()
    except SystemExit as ending:
        code = ending.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    with suppress(OSError):  # a reader such as `head` may have closed the pipe
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1 if code else 0)
