"""What an error or a command says to try next is a command that exists, with arguments and options that it takes."""

from __future__ import annotations

import click
import pytest
from support import command_lines, error_codes


@pytest.fixture(autouse=True)
def _files_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def test_the_source_is_full_of_hints() -> None:
    assert len(error_codes.source().hints) > 100


def test_a_hint_names_a_command_line_that_comity_takes() -> None:
    lines = [line for hint in sorted(error_codes.source().hints) for line in command_lines.advised(hint)]
    assert {" ".join(line): why for line in lines if (why := refusal(line))} == {}


def refusal(line: list[str]) -> str:
    """Why Click would not take these arguments of `comity`; nothing if it does."""
    try:
        command_lines.parse(line)
    except click.UsageError as error:
        return error.format_message()
    return ""
