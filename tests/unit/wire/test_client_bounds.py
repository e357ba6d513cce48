"""Answers of a node that do not end: the client gives up, with a reason. Each fake node ends the test itself if the
client does not give up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.tlog.note import log_verifier_key
from comity.wire.artifact import SearchPage
from comity.wire.client import NodeClient
from comity.wire.node import Charter
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader
from comity_client import uplink
from comity_client.charter.state import _epochs
from comity_client.events import ignore_event
from comity_client.evidence.search import _pages
from comity_client.uplink import Uplink, log_lines
from support.world import private_key

DATA = {sha256(text): text for text in (b"one" * 1_000_000, b"two" * 1_000_000)}
ENDLESS = 3_000
Missing: TypeAlias = "Callable[[int], Sequence[MissingObject]]"


class Client:
    """Gives endless answers, of a kind that the test chooses."""

    def __init__(
        self, missing: Callable[[int], Sequence[MissingObject]] = lambda turn: (), fails: bool = False
    ) -> None:
        self.turns = 0
        self._missing, self._fails = missing, fails

    def _turn(self) -> int:
        self.turns += 1
        assert self.turns < ENDLESS, "the answer does not end"
        return self.turns

    async def submit(self, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
        return Submitted(sha256(b""), tuple(self._missing(self._turn())))

    async def upload(self, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        if self._fails:
            raise Unavailable("gone")
        return header.size

    async def search(self, text: str, cursor: str, *, kind: str) -> SearchPage:
        turn = self._turn()
        return SearchPage((), str(turn))

    async def epochs(self, start: int) -> tuple[Charter, ...]:
        self._turn()
        return (Charter(start, b"", ()),)


def lacking(*numbers: int, received: int = 0) -> list[MissingObject]:
    return [MissingObject(digest, 3_000_000, received) for digest in [list(DATA)[number] for number in numbers]]


@pytest.mark.parametrize(
    ("client", "code"),
    [
        pytest.param(Client(lambda turn: lacking(0)), "ASKED-AGAIN", id="the same again"),
        pytest.param(Client(lambda turn: lacking(turn % 2)), "ASKED-AGAIN", id="two in turn"),
        pytest.param(Client(), "ASKED-AGAIN", id="nothing at all"),
        pytest.param(Client(lambda turn: lacking(0, received=turn % 7), fails=True), "UNAVAILABLE", id="more and less"),
        pytest.param(Client(lambda turn: lacking(0, received=turn), fails=True), "UNAVAILABLE", id="a byte a round"),
    ],
)
async def test_a_node_that_never_has_all_objects_is_no_longer_asked(
    client: Client, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "RETRY_DELAY", 0)
    log = log_verifier_key("node.example/log", private_key("node", "ed25519").public)
    target = Uplink(cast(NodeClient, client), "node", log, operator=False)
    with pytest.raises(ComityError) as refused:
        await log_lines(target, [b"line"], DATA, {}, link=False, on_event=ignore_event)
    assert refused.value.code == code


async def test_a_file_removed_here_after_its_upload_does_not_fail_the_publication(tmp_path: Path) -> None:
    log = log_verifier_key("node.example/log", private_key("node", "ed25519").public)
    receipt = SubmitReceipt(log.name, 0, sha256(b"line"))

    class Logged(Client):
        async def submit(self, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
            return Submitted(sha256(b""), (), (receipt,))

    target = Uplink(cast(NodeClient, Logged()), "node", log, operator=False)
    files = {sha256(b"weights"): tmp_path / "removed"}
    assert await log_lines(target, [b"line"], {}, files, link=False, on_event=ignore_event) == (receipt,)


async def test_a_search_with_endless_pages_ends() -> None:
    with pytest.raises(Malformed) as refused:
        await _pages(cast(NodeClient, Client()), "word", 50, "")
    assert refused.value.code == "UNBOUNDED"


async def test_a_node_with_endless_epochs_is_no_longer_asked() -> None:
    with pytest.raises(Malformed) as refused:
        await _epochs(cast(NodeClient, Client()), 0)
    assert refused.value.code == "UNBOUNDED"
