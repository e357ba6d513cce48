"""Hints of errors and commands: each names a command that exists, with arguments and options that it accepts."""

from __future__ import annotations

from pathlib import Path

import click
import comity.addons  # noqa: F401  # texts name commands of add-ons
import pytest
from comity_cli.commands.pull import _next_step as next_step
from support import command_lines, error_codes


@pytest.fixture(autouse=True)
def _files_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def test_the_source_is_full_of_hints() -> None:
    assert len(error_codes.source().hints) > 100


def test_a_hint_names_a_command_line_that_comity_takes() -> None:
    lines = [line for hint in sorted(error_codes.source().hints) for line in command_lines.advised(hint)]
    assert {" ".join(line): why for line in lines if (why := refusal(line))} == {}


@pytest.mark.parametrize(
    ("title", "to", "hub_cache", "hint"),
    [
        ("a/b@v1", None, None, "HF_HUB_OFFLINE=1, then from_pretrained('a/b', revision='v1')"),
        ("a/b@v1", None, Path("/c"), "HF_HUB_OFFLINE=1, then from_pretrained('a/b', revision='v1', cache_dir='/c')"),
        (f"sha256:{'ab' * 32}", None, None, "comity verify '/pulled here'"),
        ("a/b@v1", Path("/pulled here"), None, "comity verify '/pulled here'"),
    ],
)
def test_what_was_pulled_is_found_by_the_next_step(
    title: str, to: Path | None, hub_cache: Path | None, hint: str
) -> None:
    assert next_step(title, Path("/pulled here"), to, hub_cache) == hint


def test_the_next_step_after_a_pull_by_a_policy_verifies_by_the_same_policy() -> None:
    hint = next_step("a/b@v1", Path("/here"), Path("/here"), None, Path("our policy.toml"))
    assert hint == "comity verify /here --policy 'our policy.toml'"


def refusal(line: list[str]) -> str:
    """The reason why Click refuses these arguments of `comity`; empty if it accepts them."""
    try:
        command_lines.parse(line)
    except click.UsageError as error:
        return error.format_message()
    return ""
