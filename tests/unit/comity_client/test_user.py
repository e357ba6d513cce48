"""A user's session: what is run in it returns what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity_client.home import Home
from comity_client.session import Session
from comity_client.user import User


@pytest.mark.parametrize("name", [f"hf:org/tiny@{'1f' * 20}", "hf:org/tiny", "ms:org/tiny@sha256:51aa51aa"])
def test_the_default_policy_for_an_upstream_is_that_of_mirrors_with_the_scheme_too(tmp_path: Path, name: str) -> None:
    user = User(Home(tmp_path))
    ordinary, mirrored = user.policy(()), user.policy((), name)
    assert "signatures" in ordinary.require and "signatures" not in mirrored.require
    assert user.policy((), f"comity://{name}") == mirrored
    assert user.policy((), "comity://swiss-ai/tiny@v1") == ordinary


class Large:
    """What takes long to render as text; it counts how often that is done."""

    rendered = 0

    def __repr__(self) -> str:
        self.rendered += 1
        return "a text"


def test_what_was_found_is_not_rendered_as_text(tmp_path: Path) -> None:
    """`asyncio.Runner` does so with what it returns, when it gives the signal of an interruption back."""

    async def work(session: Session) -> Large:
        return Large()

    assert User(Home(tmp_path)).run(work).rendered == 0
