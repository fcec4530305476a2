"""Writes the parts of the documents that are generated from the code:  python docs/generate.py"""

import re
from pathlib import Path

from htdemucs.cli.main import cli

COMMAND_LINE = Path(__file__).with_name("command-line.md")
HELP = re.compile(r"```console\n\$ htdemucs ?([\w]*) --help\n.*?```", re.S)


def command_line(text: str) -> str:
    """Return the page with each `$ htdemucs COMMAND --help` followed by what that prints."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        context = cli.make_context("htdemucs", [], resilient_parsing=True, terminal_width=80)
        if name:
            context = cli.commands[name].make_context(
                name, [], context, resilient_parsing=True, terminal_width=80
            )
        words = f"htdemucs {name}".strip()
        return f"```console\n$ {words} --help\n{context.get_help()}\n```"

    return HELP.sub(fill, text)


if __name__ == "__main__":
    COMMAND_LINE.write_text(command_line(COMMAND_LINE.read_text("utf-8")), encoding="utf-8")
