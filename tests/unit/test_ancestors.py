"""Statements about ancestors are shown beside those about the artifact, and never replace them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from comity.trust.charter.federation import Federation
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import EvidenceReader
from comity.trust.policy import Policy
from comity.wire.messages import LocatedEntry
from comity_client.evidence import related as ancestors
from comity_client.evidence.related import gather_ancestors, with_ancestor_lines
from comity_client.session import Answers, RemoteNode, Session
from support.derivations import derived_line
from support.world import identity


def test_lines_about_ancestors_follow_those_about_the_artifact_each_once() -> None:
    assert with_ancestor_lines((b"a", b"b"), (b"c", b"b", b"c", b"d")) == (b"a", b"b", b"c", b"d")


def test_ancestors_get_the_remaining_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestors, "MAX_CLAIMS", 3)
    assert with_ancestor_lines((b"a", b"b"), (b"c", b"d")) == (b"a", b"b", b"c")
    assert with_ancestor_lines((b"a", b"b", b"c"), (b"d",)) == (b"a", b"b", b"c")
    monkeypatch.setattr(ancestors, "MAX_CLAIMS", 100)
    monkeypatch.setattr(ancestors, "MAX_READ", 9)
    assert with_ancestor_lines((b"aaa",), (b"bb", b"c", b"d")) == (b"aaa", b"bb", b"c")


@dataclass(frozen=True)
class _Record:
    log: str = "log+key"


class Told:
    """A session whose nodes claim for each artifact that it is derived from two others, without an end."""

    pins: tuple[Federation, ...] = ()
    record = _Record()

    def __init__(self) -> None:
        self.asked: list[Digest] = []
        self.reader = EvidenceReader()

    def records(self) -> tuple[bytes, ...]:
        return ()

    async def ask(
        self, question: Callable[[Told], Awaitable[Sequence[LocatedEntry]]]
    ) -> Answers[Sequence[LocatedEntry]]:
        return Answers({cast(RemoteNode, self): await question(self)}, {})

    async def claims(self, artifact: Digest) -> Sequence[LocatedEntry]:
        self.asked.append(artifact)
        lines = [derived_line(artifact, sha256(f"{artifact}{n}".encode())) for n in range(2)]
        return [LocatedEntry("log", 0, line) for line in (identity("Checking lab", "ES").entry.line, *lines)]


async def test_an_endless_lineage_is_followed_to_a_bound_nearest_first() -> None:
    told, child = Told(), sha256(b"child")
    first = derived_line(child, sha256(b"parent"))
    lines = await gather_ancestors(cast(Session, told), child, None, [first], Policy())
    assert told.asked[0] == sha256(b"parent")
    assert len(told.asked) == len(set(told.asked))
    assert ancestors.MAX_ARTIFACTS <= len(told.asked) <= ancestors.MAX_ARTIFACTS + ancestors.AT_ONCE
    assert len(lines) == 3 * len(told.asked)


async def test_no_more_is_asked_once_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestors, "MAX_BYTES", 1)
    told, child = Told(), sha256(b"child")
    await gather_ancestors(cast(Session, told), child, None, [derived_line(child, sha256(b"parent"))], Policy())
    assert told.asked == [sha256(b"parent")]
