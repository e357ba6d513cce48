"""The newest statements of the overview: an author that says much displaces its own, before and after a start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity, Release
from comity.gateway.console import recent
from comity.gateway.console.recent import RECENT, RecentStatements
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.statement_groups import StatementGroups
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest
from support.logs import LogKeys

OWN = LogKeys.generate("own.example/log")
HONEST, OTHER, FLOOD = (Identity.made(name) for name in ("honest", "other", "flood"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger.open(tmp_path, lambda: 1_000)) as opened:
        opened.logs.create(OWN.origin, OWN.vkey, own=True)
        yield opened


def overview(ledger: Ledger, *members: Identity) -> RecentStatements:
    membership = SimpleNamespace(precedence=Precedence(members=frozenset(Digest(each.id) for each in members)))
    groups = StatementGroups(ledger.proven, cast(Membership, membership))
    return RecentStatements(AsyncLedger(ledger), groups)


def publish(ledger: Ledger, author: Identity, name: str, count: int, first: int = 0) -> None:
    named = ((f"{name}-{number}@v1", Release(f"{name} {number}".encode())) for number in range(first, first + count))
    ledger.logs.append(OWN.vkey, [author.publish(each, release) for each, release in named])


async def shown(found: RecentStatements) -> list[int]:
    """The indexes in the log, the newest first, once everything was read."""
    while await found.step():
        pass
    return [line.index for line in await found.now()]


async def test_a_thousand_publications_of_one_identity_displace_nobody(ledger: Ledger) -> None:
    following = overview(ledger)
    publish(ledger, HONEST, "a/old", 1)
    publish(ledger, OTHER, "b/old", 1)
    assert await shown(following) == [1, 0]
    publish(ledger, FLOOD, "junk/model", 1_000)
    for found in (following, overview(ledger)):  # the second one starts after the flood
        indexes = await shown(found)
        assert len(indexes) == RECENT
        assert indexes[-2:] == [1, 0]
        assert indexes[0] == 1_001
    publish(ledger, HONEST, "a/new", 1)
    assert (await shown(following))[0] == 1_002


async def test_what_is_new_is_shown_before_all_older_statements_were_read(ledger: Ledger) -> None:
    publish(ledger, FLOOD, "junk/model", 600)
    found = overview(ledger)
    await found.step()
    publish(ledger, HONEST, "a/new", 1)
    assert (await found.now())[0].index == 600


async def test_a_start_looks_back_only_so_far(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "LOOKED_BACK", 5)
    monkeypatch.setattr(recent, "STEP", 2)
    publish(ledger, HONEST, "a/old", 1)
    publish(ledger, FLOOD, "junk/model", 7)
    assert await shown(overview(ledger)) == [7, 6, 5, 4, 3]


async def test_a_statement_in_the_log_twice_is_shown_once(ledger: Ledger) -> None:
    line = HONEST.publish("a/m@v1", Release(b"bytes"))
    ledger.logs.append(OWN.vkey, [line])
    ledger.logs.append(OWN.vkey, [line])
    assert await shown(overview(ledger)) == [0]


async def test_members_have_places_of_their_own(ledger: Ledger) -> None:
    publish(ledger, HONEST, "member/model", 3)
    for number in range(40):
        publish(ledger, Identity.made(f"stranger {number}"), f"s{number}/model", 1)
    indexes = await shown(overview(ledger, HONEST))
    assert {0, 1, 2} < set(indexes)
    assert len(indexes) == RECENT
