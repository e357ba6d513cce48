"""The reader of `comity` command lines in documentation: each one that a reader may type is parsed."""

from __future__ import annotations

import click
import pytest
from support import command_lines


@pytest.mark.parametrize("mark", ["", "sh", "console"])
@pytest.mark.parametrize("indent", ["", "   "])
@pytest.mark.parametrize("prompt", ["", "$ "])
def test_a_line_of_every_block_of_commands_is_read_also_in_a_list(mark: str, indent: str, prompt: str) -> None:
    lines = [f"```{mark}", f"{prompt}comity pull a/b \\", "  --out c  # here", "```"]
    assert list(command_lines.shown("".join(f"{indent}{line}\n" for line in lines))) == [["pull", "a/b", "--out", "c"]]


@pytest.mark.parametrize(
    "line", ['eval "$(comity env --node x)"', "eval $(comity env --node x)", "a && comity env --node x"]
)
def test_a_command_within_a_line_is_read(line: str) -> None:
    assert list(command_lines.shown(f"```console\n{line}\n```\n")) == [["env", "--node", "x"]]


def test_a_quotation_mark_too_many_is_an_error_in_a_command_and_not_in_what_it_prints() -> None:
    assert list(command_lines.shown("```\n$ comity version\ncomity says: don't\n```\n")) == [["version"]]
    with pytest.raises(ValueError, match="quotation"):
        list(command_lines.shown("```console\n$ comity pull 'a\n```\n"))


@pytest.mark.parametrize("line", ["comity nonsense", "comity pull a/b --nonsense", "comity backup nonsense x"])
def test_an_unknown_command_or_option_in_a_block_for_the_console_is_refused(line: str) -> None:
    (arguments,) = command_lines.shown(f"```console\n$ {line}\n```\n")
    with pytest.raises(click.UsageError):
        command_lines.parse(arguments)
