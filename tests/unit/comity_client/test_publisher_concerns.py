"""What concerns a publisher, as nodes list it: each statement is proven here, and a node invents none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from comity.trust.encoding import Digest
from comity.wire import limits
from comity.wire.concerns import KEYS, ConcernPart
from comity.wire.messages import LocatedEntry
from comity_cli.commands.publisher import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publisher_concerns import WHYS
from support.fakes import FakeFederation, FakeNode, release
from support.run_command import printed, refused, said
from support.world import identity


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    federation = FakeFederation(("CH", "SG"))
    with federation.running() as running:
        folder = tmp_path_factory.mktemp("watched")
        running.publish(release(folder / "one", {"a.bin": b"a"}, by=running.publisher))
        yield running


@pytest.fixture(name="publisher")
def _publisher(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    Client(Home(tmp_path / "home")).pin(running.file())
    return running.publisher.id


def test_a_statement_under_the_identity_is_proven_and_listed_once(publisher: Digest) -> None:
    text = said(command, "watch", publisher)
    assert "your identity" in text and "swiss-ai/tiny@v1" in text and publisher[:12] in text
    document = printed(command, "watch", publisher)
    (found,) = document["concerns"]
    assert found["why"] in WHYS
    assert (found["why"], found["predicate"], found["name"]) == ("own", "published", "swiss-ai/tiny@v1")
    assert (document["publisher"], document["incomplete"], found["by"]) == (publisher, [], publisher)


def test_nothing_known_of_an_identity_is_said_and_an_unknown_label_is_refused(publisher: Digest) -> None:
    assert "Nothing that the nodes know." in said(command, "watch", "0" * 64)
    refused(command, "watch", "Nobody")


def test_what_a_node_invents_or_says_of_another_is_left_out(publisher: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    thief = identity("thief", "CH")

    async def lies(self: FakeNode, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        yield ConcernPart(3, more=True)
        (located,) = (each for each, entry in self._entries() if entry.statement.predicate == "published")
        forged = bytearray(located.line)
        forged[-10] ^= 1  # in the signature
        yield ConcernPart(3, True, "name", (located,))  # it is its own
        yield ConcernPart(3, True, "odd", (located,))
        yield ConcernPart(3, True, "own", (LocatedEntry("a/log", 1, bytes(forged)),))
        yield ConcernPart(3, True, "own", (LocatedEntry("a/log", 3, b"no statement"),))
        yield ConcernPart(3, True, "own", (LocatedEntry("a/log", 2, thief.entry.line),))
        yield ConcernPart(3, True, KEYS, (LocatedEntry("a/log", 2, thief.entry.line),))

    monkeypatch.setattr(FakeNode, "concerns", lies)
    document = printed(command, "watch", publisher)
    assert document["concerns"] == []
    text = " ".join(document["incomplete"])
    assert "knows of more than it lists" in text and "has not read 3 statements yet" in text


def test_more_than_a_node_may_list_is_no_answer(publisher: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def floods(self: FakeNode, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        for _ in range(limits.CONCERNS_LISTED + 2):
            yield ConcernPart(0, False, "own", ())

    monkeypatch.setattr(FakeNode, "concerns", floods)
    refused(command, "watch", publisher)


def test_what_was_known_before_a_day_is_left_out(publisher: Digest) -> None:
    assert printed(command, "watch", publisher, "--since", "2000-01-01")["concerns"] == []  # no node says since when
