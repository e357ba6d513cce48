"""What an error or a command says to try next is a command that exists, with arguments and options that it takes."""

from __future__ import annotations

import click
import pytest
from support import command_lines, error_codes

HINTS = sorted(set(error_codes.hints()))


@pytest.fixture(autouse=True)
def _files_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def test_the_source_is_full_of_hints() -> None:
    assert len(HINTS) > 100


@pytest.mark.parametrize("hint", [hint for hint in HINTS if "comity " in hint])
def test_a_hint_names_a_command_line_that_comity_takes(hint: str) -> None:
    for line in command_lines.advised(hint):
        try:
            command_lines.parse(line)
        except click.UsageError as error:
            pytest.fail(f"comity {' '.join(line)}: {error.format_message()}")
