"""Which bytes a commit of an upstream means: what most members fetched, else saw first, else nobody decides."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, PolicyNotMet, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.names import Reference
from comity.trust.statement import Entry
from comity.wire.messages import LocatedEntry
from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.mirrored import decide_commit
from support.asked_nodes import AskedNodes
from support.case import case, nodes
from support.observations import COMMIT, NAME, observation
from support.world import identity, node

GOOD = case()
MEMBERS = nodes()
ONE, OTHER = sha256(b"one"), sha256(b"other")
SECOND = "2e" * 20


class Session(AskedNodes):
    """Nodes of these members, each with its lines."""

    def __init__(self, answers: Sequence[tuple[int, Sequence[Entry]]]) -> None:
        super().__init__(*(Asked(number, entries) for number, entries in answers))
        self.reader, self.pins = EvidenceReader(), (GOOD.federation,)

    def records(self) -> tuple[Entry, ...]:
        return tuple(self.reader.entry(each.line) for each in GOOD.federation.nodes)


class Asked:
    def __init__(self, number: int, entries: Sequence[Entry]) -> None:
        owner = MEMBERS[number]
        self.name, self.entries, self.member = owner.origin, entries, owner.seat.member
        self.record = SimpleNamespace(log=f"{owner.origin} {number}")

    async def resolve(self, *_: object) -> tuple[LocatedEntry, ...]:
        return tuple(LocatedEntry(self.name, at, entry.line) for at, entry in enumerate(self.entries))


async def decided(*answers: tuple[int, Sequence[Entry]], reference: str = NAME) -> Any:
    session: Any = Session(answers)
    return await decide_commit(Inquiry(session, GOOD.policy), Reference.parse(reference))


def seen(number: int, artifact: Digest = ONE, commit: str = COMMIT, how: str = "fetched") -> Entry:
    return observation(MEMBERS[number], artifact, commit=commit, how=how)


async def test_what_one_node_fetched_is_the_commit() -> None:
    found = await decided((0, [seen(0)]))
    assert found.name == NAME and found.basis.startswith("nodes that mirrored it; corroborated 1: ")
    assert (await decided((0, [seen(0)]), reference="hf:org/tiny@main")).name == NAME


async def test_the_bytes_that_most_members_fetched_win() -> None:
    said = [seen(0), seen(1, OTHER), seen(2, OTHER)]
    found = await decided((0, said))
    assert "corroborated 2" in found.basis
    assert found.artifact == OTHER


async def test_of_equally_many_those_that_most_saw_first_win_or_nobody_decides() -> None:
    mine, theirs = seen(0), seen(1, OTHER)
    found = await decided((0, [theirs, mine]), (1, [theirs, mine]), (2, [mine, theirs]), (3, [theirs, mine]))
    assert found.artifact == OTHER
    with pytest.raises(PolicyNotMet, match="is disputed") as raised:
        await decided((0, [mine, theirs]), (1, [theirs, mine]))
    assert raised.value.code == "UPSTREAM-DISPUTED" and ONE in raised.value.why and OTHER in raised.value.why
    assert f"comity trust bind {NAME}" in raised.value.hint


async def test_a_node_of_no_member_counts_for_nothing() -> None:
    stranger = node(identity("Stranger", "FR", kind="member"))
    with pytest.raises(NotFound) as raised:
        await decided((0, [observation(stranger, ONE)]))
    assert raised.value.code == "NOT-MIRRORED"


async def test_another_commit_is_named_where_the_wanted_one_is_missing() -> None:
    with pytest.raises(NotFound) as raised:
        await decided((0, [seen(0)]), reference=f"hf:org/tiny@{SECOND}")
    assert raised.value.code == "NOT-MIRRORED" and NAME in raised.value.why and "comity import" in raised.value.hint
    with pytest.raises((NotFound, Unavailable)):
        await decided()


async def test_of_several_commits_most_members_decide_or_nobody() -> None:
    first, second = seen(0), seen(1, OTHER, SECOND)
    found = await decided((0, [first, second, seen(2, OTHER, SECOND)]), reference="hf:org/tiny")
    assert found.name == f"hf:org/tiny@{SECOND}"
    with pytest.raises(PolicyNotMet) as raised:
        await decided((0, [first, second]), (1, [second, first]), reference="hf:org/tiny")
    assert raised.value.code == "NO-ORDER" and "2 commits are mirrored" in raised.value.why


async def test_a_copy_from_a_folder_is_named_as_that() -> None:
    found = await decided((0, [seen(0, how="carried")]))
    assert "no node fetched it" in found.basis
