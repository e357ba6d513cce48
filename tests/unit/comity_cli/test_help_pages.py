"""Every help page fits a terminal of 80 columns, and its examples can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from comity_cli.command import Command, Group, continued
from comity_cli.main import command

WIDTH = 80
LONGEST_WORD = 60
"""A head of an audit log fits no line together with its option."""


def pages(made: click.Command, context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
    yield context, made
    if not isinstance(made, click.Group):
        return
    for name in made.list_commands(context):
        sub = made.get_command(context, name)
        assert sub is not None
        yield from pages(sub, click.Context(sub, info_name=name, parent=context, terminal_width=WIDTH))


def test_every_help_page_fits_80_columns() -> None:
    root = click.Context(command, info_name="comity", terminal_width=WIDTH)
    long = [
        (context.command_path, line)
        for context, made in pages(command, root)
        for line in click.unstyle(made.get_help(context)).splitlines()
        if len(line) > WIDTH and max(map(len, line.split())) < LONGEST_WORD
    ]
    assert long == []


def test_an_example_in_several_lines_is_the_same_command_for_a_shell() -> None:
    root = click.Context(command, info_name="comity", terminal_width=WIDTH)
    lines = [line for _, made in pages(command, root) if isinstance(made, Command | Group) for line in made.examples]
    assert any("\n" in continued(line, 78) for line in lines)
    for line in lines:
        assert shlex.split(continued(line, 78).replace("\\\n", "")) == shlex.split(line)


@pytest.mark.parametrize("width", [20, 40, 78])
def test_a_word_or_a_quotation_stays_whole(width: int) -> None:
    line = "comity x --text 'one two three four five six' --key " + "k" * 90
    assert "'one two three four five six'" in continued(line, width)
    assert "k" * 90 in continued(line, width)
