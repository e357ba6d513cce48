"""Runs one command of `comity` in this process, as its module has it."""

from __future__ import annotations

import json
from typing import Any

import click
from click.testing import CliRunner, Result
from comity.trust.errors import ComityError
from comity_cli.output import Output


def run(command: click.Command, *words: object, answer: str | None = None) -> Result:
    """The result of the command with these words; `answer` is what is typed, as if at a terminal."""
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(
        command, [str(word) for word in words], obj=Output(), input=answer, standalone_mode=False
    )
    if isinstance(result.exception, click.ClickException):
        result.exit_code = result.exception.exit_code
    elif isinstance(result.return_value, int):  # as `comity_cli.main` takes what a command returns
        result.exit_code = result.return_value
    return result


def said(command: click.Command, *words: object) -> str:
    """What the command prints, in one line, where it succeeds."""
    result = run(command, *words)
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


def printed(command: click.Command, *words: object, status: int = 0) -> dict[str, Any]:
    """The JSON document that the command prints, where it ends with this status."""
    result = run(command, *words, "--json")
    assert result.exit_code == status, (result.output, result.exception)
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def refused(command: click.Command, *words: object) -> ComityError:
    """The error with which the command ends."""
    result = run(command, *words)
    assert isinstance(result.exception, ComityError), (result.output, result.exception)
    return result.exception
