"""The `comity` command lines that documentation shows, and whether the real command accepts them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
from comity_cli.main import COMMANDS
from comity_cli.main import command as root
from comity_cli.output import Output

_BLOCK = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
"""Also in a list, where a block is indented."""
_SHELL = ("sh", "console")
_QUOTED = re.compile(r'"\$\(([^()"]*)\)"')
"""A command whose output is one word: "$(comity env)"."""
_INLINE = re.compile(r"`(comity [^`]+)`")
_ADVISED = re.compile(r"\bcomity (.*?)(?=[;,:)]|   | then |$)")
_ENDS = ("|", "||", "&&", ";", ">", ">>", "&", ")")


def shown(text: str) -> Iterator[list[str]]:
    """Arguments of each `comity …` in the code blocks of a Markdown text; continued lines are joined."""
    for mark, block in _BLOCK.findall(text):
        for line in map(str.strip, block.replace("\\\n", " ").splitlines()):
            yield from _arguments(line.removeprefix("$ "), typed=line.startswith("$ ") or mark in _SHELL)


def mentioned(text: str) -> Iterator[list[str]]:
    """Words of each inline `comity …` outside of code blocks."""
    for words in _INLINE.findall(_BLOCK.sub("", text)):
        yield words.split()[1:]


def advised(hint: str) -> Iterator[list[str]]:
    """Arguments of each `comity …` in a hint, which ends at a punctuation mark, at three spaces or before "then"."""
    for words in _ADVISED.findall(hint):
        yield shlex.split(words)


def parse(arguments: list[str]) -> None:
    """Have Click parse `arguments`, and run nothing. Raises click.UsageError for what it would refuse. Files need not
    exist: the caller replaces `click.Path`.
    """
    command: click.Command = root
    context: click.Context | None = None
    rest = arguments
    while True:
        try:
            context = command.make_context(command.name, list(rest), parent=context, obj=Output())
        except click.exceptions.Exit:
            return  # --help, --version
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return  # a group that is a command, too
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found


def exists(words: list[str]) -> bool:
    """Whether `words` begins with a command, and with a subcommand where that is a group."""
    if words[0].startswith("-"):
        return words[0] in ("--help", "--version")
    lazy = root.get_command(click.Context(root), words[0])
    if lazy is None or not isinstance(lazy, click.Group) or len(words) == 1:
        return lazy is not None
    if lazy.invoke_without_command and words[1].startswith("-"):
        return True  # a group that is a command, too
    return all(verb in lazy.commands for verb in words[1].split("|"))


def _arguments(line: str, *, typed: bool) -> Iterator[list[str]]:
    """Raises ValueError for a line that a person types and that has a quotation mark too many."""
    try:
        lexer = shlex.shlex(_QUOTED.sub(r"(\1)", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        if typed and "comity" in line:
            raise
        return  # output of a command
    for at, (word, following) in enumerate(itertools.pairwise(words)):
        if Path(word).name == "comity" and (at == 0 or following in COMMANDS):
            rest = words[at + 1 :]
            stop = next((i for i, word in enumerate(rest) if word in _ENDS), len(rest))
            yield rest[:stop]
