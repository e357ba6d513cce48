"""`GetConcerns`: first how much is unread, then what concerns the publisher, then the keys that prove it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.ledger.ledger import Ledger
from comity.node.publisher_watch import Concern, FoundConcerns
from comity.node.reading import ReadState
from comity.node.services import author_lines
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.concerns import ConcernFinder
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import Refused
from comity.trust.statement import parse_entry
from comity.wire.concerns import KEYS, ConcernPart
from support.answering import inception_and_rotations, with_recovery
from support.logs import LogKeys

LOG, OWNER, OTHER = LogKeys.generate("far.example/log"), Identity.made("owner"), Identity.made("other")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger.open(tmp_path / "ledger", lambda: 1_000)) as made:
        made.logs.create(LOG.origin, LOG.vkey, own=True)
        made.logs.append(LOG.vkey, [OWNER.publish("a/b@v1", Release(b"1")), OTHER.publish("a/b@v1", Release(b"2"))])
        yield made


async def call(work: Any, *arguments: Any) -> Any:
    return work(*arguments)


async def test_an_answer_says_what_is_unread_and_gives_statements_and_then_keys(ledger: Ledger) -> None:
    authors = [line.statement.by.id for line in map(parse_entry, lines(ledger)) if line.statement.by]
    own, other = dict.fromkeys(authors)
    asked = list[tuple[Digest, int]]()

    def concerns(publisher: Digest, most: int) -> FoundConcerns:
        asked.append((publisher, most))
        rows = [Concern(own, "own", own, 1), Concern(own, "name", other, 2), Concern(own, "files", other, 99)]
        return FoundConcerns(tuple(rows), more=True)

    reader: Any = SimpleNamespace(progress=lambda: ReadState(3, 5), watch=SimpleNamespace(concerns=concerns))
    pools: Any = SimpleNamespace(files=call)
    parts = [part async for part in ConcernFinder(AsyncLedger(ledger), pools, reader).find(own)]
    assert parts[0] == ConcernPart(2, more=True)
    assert [part.why for part in parts[1:] if part.why != KEYS] == ["own", "name"]
    assert [part.entries[0].line for part in parts[1:3]] == lines(ledger)
    assert all((part.unread, part.more) == (2, True) for part in parts)
    assert asked == [(own, 100)]


async def test_many_keys_of_one_author_hide_no_keys_of_another(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who publishes under a name of the owner could make the answer longer than its asker takes."""
    loud = with_recovery("loud")
    every = inception_and_rotations(loud, 9)
    ledger.logs.append(LOG.vkey, [OTHER.inception, *every, loud.publish("a/b@v1", Release(b"3"))])
    monkeypatch.setattr(author_lines, "KEYS_BYTES", len(OTHER.inception) + sum(map(len, every[:3])))
    ids = [Digest(each.id) for each in (loud, OTHER)]

    def concerns(publisher: Digest, most: int) -> FoundConcerns:
        return FoundConcerns(tuple(Concern(publisher, "name", each, 1) for each in ids), more=False)

    reader: Any = SimpleNamespace(progress=lambda: ReadState(3, 3), watch=SimpleNamespace(concerns=concerns))
    pools: Any = SimpleNamespace(files=call)
    parts = [part async for part in ConcernFinder(AsyncLedger(ledger), pools, reader).find(Digest(OWNER.id))]
    keys = [part.entries[0].line for part in parts if part.why == KEYS]
    assert OTHER.inception in keys and 2 <= len(keys) <= 4


def lines(ledger: Ledger) -> list[bytes]:
    return [line.line for line in ledger.proven.numbered([1, 2])]


async def test_a_front_end_leaves_it_to_the_writer() -> None:
    ledger: Any = SimpleNamespace(tables=SimpleNamespace(proven=None, proven_times=None))
    unused: Any = None
    with pytest.raises(Refused, match="front end") as refused:
        [part async for part in ArtifactServicer(ledger, unused, unused).concerns(Digest("ab" * 32))]
    assert refused.value.code == "FRONT-END"
