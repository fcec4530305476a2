"""The `htdemucs` command."""

import shlex
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from htdemucs.cli.batch import batch
from htdemucs.cli.bench import bench
from htdemucs.cli.console import print_error, print_warning
from htdemucs.cli.evaluate import evaluate
from htdemucs.cli.live import live
from htdemucs.cli.models import convert, export, models
from htdemucs.cli.progress import exit_code, one_line
from htdemucs.cli.separate import separate
from htdemucs.cli.serve import serve
from htdemucs.cli.standard_streams import prepare_standard_streams
from htdemucs.cli.stream import stream
from htdemucs.cli.trace import trace
from htdemucs.cli.train import train
from htdemucs.version import __version__

SECTIONS = {
    "Separate": (separate, serve, live, stream, batch),
    "Models": (models, convert, export),
    "Research": (train, evaluate, trace, bench),
}


class CommandGroup(click.Group):
    """The commands in sections. An expected error is one line, and exit code 1 or 2."""

    def main(self, *args: Any, **settings: Any) -> NoReturn:
        """Run a command line and exit."""
        try:
            code = super().main(*args, **settings | {"standalone_mode": False})
            sys.stdout.flush()
        except click.exceptions.Exit as ending:  # while standard output was flushed
            code = ending.exit_code
        except Exception as error:
            if (message := one_line(error)) is None:
                raise
            print_error(message)
            code = exit_code(error)
        sys.exit(code or 0)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summary of each command, section by section."""
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(c.name or "", c.get_short_help_str(limit=200)) for c in commands]
                )

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that the first argument names."""
        word = args[0]
        if self.get_command(ctx, word) is None and ("." in word or Path(word).exists()):
            ctx.fail(f"{word!r} is not a command; try: htdemucs separate {shlex.join(args)}")
        return super().resolve_command(ctx, args)


@click.group(
    "htdemucs",
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="COMMAND [ARGS]...",
    epilog='Completion in bash: eval "$(_HTDEMUCS_COMPLETE=bash_source htdemucs)"; likewise '
    "zsh_source and fish_source.",
    invoke_without_command=True,  # what click does without a command depends on its version
)
@click.version_option(__version__, message="htdemucs %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Split songs into drums, bass, other and vocals with Hybrid Transformer Demucs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


for commands in SECTIONS.values():
    for one in commands:
        cli.add_command(one)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    signal.signal(signal.SIGINT, _stop)
    prepare_standard_streams()
    warnings.showwarning = print_warning
    cli.main()
