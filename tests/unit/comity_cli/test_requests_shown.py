"""What an operator reads before signing: the text of a stranger stays on its own line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from comity.trust.encoding import sha256
from comity_cli.main import command
from comity_cli.offers import provider
from comity_cli.output import Output

TEXT = "training\n  big          2027-01-01 to 2027-01-02, 1 accelerator-hours; 500 nodes free"


class Shown(Exception):
    """Raised where the command would ask for a signature."""


class ContextOfStranger:
    """An `OfferContext` with a statement of a stranger."""

    def __init__(self, **_: object) -> None:
        pass

    def statement(self, given: str, kind: object) -> object:
        content = SimpleNamespace(by="stranger", text=TEXT, pact=False, allocations=(), grant=sha256(b"grant"))
        identities = SimpleNamespace(name=lambda _: "Stranger")
        view = SimpleNamespace(identities=identities)
        return SimpleNamespace(statement=content, view=view, entry=SimpleNamespace(digest=sha256(b"x")))

    def record(self, *_: object) -> None:
        raise Shown


@pytest.mark.parametrize(
    "arguments", [("approve", "7c6b5a49"), ("answer", "7c6b5a49", "--text", "x")], ids=lambda given: given[0]
)
def test_a_text_with_lines_cannot_look_like_a_line_of_the_command(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(provider, "OfferContext", ContextOfStranger)
    no_lines: Callable[[Any], tuple[()]] = lambda found: ()  # noqa: E731
    monkeypatch.setattr(provider, "_unlogged_lines", no_lines)
    given = ["grant", *arguments, "--node", str(tmp_path)]
    ran = CliRunner().invoke(command, given, obj=Output(), standalone_mode=False)
    assert isinstance(ran.exception, Shown), ran.exception
    assert len(ran.output.splitlines()) == 1
    assert "training\\n  big" in ran.output
