"""Long statements and keys of some hide no words of others, and make no answer longer than an asker takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attackers.forging import Identity
from comity.node.services import author_lines, member_lines, selections
from comity.trust.encoding import Digest
from comity.wire import limits
from comity.wire.messages import LocatedEntry
from support.answering import ARTIFACT, RELEASE, Flooded, inception_and_rotations, with_recovery

LONG = 30_000
"""Bytes of a long statement."""
RIVALS = [with_recovery(f"rival {number}") for number in range(selections.PUBLISHERS - 1)]
MEMBER, CROWD = with_recovery("member"), [with_recovery(f"member {number}") for number in range(4)]


def long(who: Identity, number: int = 0, size: int = LONG) -> bytes:
    return who.say("remark", ("", ARTIFACT), {"text": f"{number}" + "x" * size})


def authors_cut(node: Flooded, found: list[LocatedEntry]) -> set[str]:
    return {node.names[each.line] for each in found if each.more}


def size_of(found: list[LocatedEntry]) -> int:
    return sum(len(each.line) for each in found)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Flooded]:
    """A node with one member, who warns of the artifact."""
    made = Flooded(tmp_path, 0)
    made.say("member", MEMBER.inception, MEMBER.advise(ARTIFACT, "malware"))
    made.service = made.service_among(MEMBER)
    yield made
    made.ledger.close()


def of(node: Flooded, name: str, found: list[LocatedEntry]) -> int:
    return len({each.line for each in found if node.names[each.line] == name})


def test_all_parts_of_an_answer_are_less_than_an_asker_takes() -> None:
    both = selections.NAMED_BYTES + author_lines.KEYS_BYTES + selections.OTHERS_BYTES
    claims = both + selections.MEMBERS_BYTES + member_lines.MAX_MEMBER_LINES
    resolved = both + selections.CLAIMED_BYTES + author_lines.KEYS_BYTES
    assert max(claims, resolved) + limits.CLAIMS * limits.MESSAGE_COST < limits.ANSWER * 0.9


async def test_who_publishes_the_same_bytes_hides_nobody_with_long_statements(
    node: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven of them could make every answer about an artifact longer than an asker takes."""
    monkeypatch.setattr(selections, "NAMED_BYTES", 20 * LONG)
    for rival in RIVALS:
        said = [long(rival, number) for number in range(6)]
        node.say("rival", rival.inception, rival.publish("a/b@v1", RELEASE), *said)
    found = await node.claims()
    assert size_of(found) < 3 * 20 * LONG
    assert node.of_publisher(found) == 3 and of(node, "member", found) == 2
    assert of(node, "rival", found) >= 7 * 3
    assert authors_cut(node, found) == {"rival"}


async def test_who_publishes_the_same_bytes_hides_no_keys_with_rotations(
    node: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(inception_and_rotations(RIVALS[0], 1)[1])
    monkeypatch.setattr(author_lines, "KEYS_BYTES", 10 * size)
    node.say("rival", *inception_and_rotations(RIVALS[0], 9), RIVALS[0].publish("a/b@v1", RELEASE))
    found = await node.claims()
    assert node.of_publisher(found) == 3
    assert of(node, "rival", found) <= 10
    assert authors_cut(node, found) == {"rival"}, "its statements may not be proven without the rest"


async def test_the_keys_of_one_member_hide_no_keys_of_others(node: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are read again, because one has a new one."""
    size = len(inception_and_rotations(CROWD[0], 1)[1])
    monkeypatch.setattr(member_lines, "MAX_MEMBER_LINES", 10 * size)
    node.service = node.service_among(MEMBER, *CROWD)
    node.say("loud", *inception_and_rotations(CROWD[0], 9), CROWD[0].advise(ARTIFACT, "beware"))
    node.say("low", *(each.inception for each in CROWD[1:]))
    for low in (3, 4):
        found = await node.claims()
        assert of(node, "low", found) == low and of(node, "member", found) == 2
        assert of(node, "loud", found) < 10
        assert authors_cut(node, found) == {"loud"}
        node.say("low", inception_and_rotations(CROWD[1], 1)[1])
    await node.claims()
    node.copy_log("other.example/log", CROWD[2].inception)
    assert authors_cut(node, await node.claims()) == {"loud"}, "also if nothing more is left out"


async def test_keys_of_strangers_change_no_lines_of_members(node: Flooded) -> None:
    lines, ids = member_lines.MemberLines(node.ledger.proven), (Digest(MEMBER.id),)
    first = lines.read(ids, ())
    node.say("stranger", RIVALS[0].inception)
    assert lines.read(ids, ()) is first


async def test_long_statements_of_members_are_bounded_together(node: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may say half as much as the rest of the answer: two hundred of them say a hundred times as much."""
    monkeypatch.setattr(selections, "LEAST_MEMBER", 10 * LONG)
    monkeypatch.setattr(selections, "MEMBERS_BYTES", 4 * LONG)
    node.service = node.service_among(MEMBER, *CROWD)
    for each in CROWD:
        node.say("loud", each.inception, *(long(each, number, LONG // 2) for number in range(4)))
    found = await node.claims()
    assert size_of(found) < 5 * LONG
    assert of(node, "member", found) == 2 and node.of_publisher(found) == 3
    assert authors_cut(node, found) == {"loud"}


async def test_copies_that_do_not_fit_do_not_mark_their_author(node: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark makes an author's silence unknown: a stranger who logs its statements again would cause that."""
    monkeypatch.setattr(selections, "LEAST_MEMBER", 2 * LONG)
    said = long(MEMBER)
    node.say("member", said)
    other = node.copy_log("other.example/log", MEMBER.inception, said)
    found = await node.claims()
    assert of(node, "member", found) == 3
    assert other not in {each.origin for each in found if each.line == said}
    assert not authors_cut(node, found)


async def test_long_claims_of_a_name_are_bounded(node: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections, "CLAIMED_BYTES", 4_000)
    rival = RIVALS[0]
    claims = [rival.publish(f"a/b@v{number}", RELEASE) for number in range(12)]
    node.say("rival", rival.inception, *claims)
    found = await node.resolved(Digest(rival.id))
    assert of(node, "publisher", found) == 3
    assert authors_cut(node, found) == {"rival"}


async def test_long_advisories_of_a_claimant_are_bounded_where_a_name_is_resolved(
    node: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selections, "NAMED_BYTES", 3 * LONG)
    rival = RIVALS[0]
    said = [rival.advise(ARTIFACT, f"{number}" + "x" * LONG) for number in range(6)]
    node.say("rival", rival.inception, rival.publish("a/b@v1", RELEASE), *said)
    found = await node.resolved(Digest(rival.id))
    assert size_of(found) < 4 * LONG
    assert node.of_publisher(found) == 3 and authors_cut(node, found) == {"rival"}


async def test_what_others_say_is_bounded_however_much_came_before(
    node: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may say as much as came before them, up to a bound; the keys of one are read up to it."""
    monkeypatch.setattr(selections, "OTHERS_BYTES", LONG)
    read = list[int]()
    fitting = selections._fitting

    def noted(by: Any, keys: Any, room: int) -> set[int]:
        read.extend(len(lines) for lines in keys.values())
        return fitting(by, keys, room)

    monkeypatch.setattr(selections, "_fitting", noted)
    node.say("member", *(MEMBER.advise(ARTIFACT, "x" * 9_000 + f"{number}") for number in range(6)))
    many = with_recovery("many")
    node.say("stranger", *inception_and_rotations(many, 9), *(long(many, number, 9_000) for number in range(8)))
    low = Identity.made("low")
    node.say("low", low.inception, low.advise(ARTIFACT, "beware"))
    found = await node.claims()
    assert of(node, "low", found) == 2
    assert sum(len(each.line) for each in found if node.names[each.line] in ("low", "stranger")) <= LONG
    assert found[-1].others
    monkeypatch.setattr(selections, "OTHERS_BYTES", len(many.inception))
    monkeypatch.setattr(selections, "LEAST_OTHERS", len(many.inception))
    read.clear()
    node.say("low", Identity.made("another").inception)  # so that the answer is not the one that is kept
    await node.claims()
    assert max(read) == 2, "more are not kept: they do not fit"


@pytest.mark.slow
async def test_what_seven_strangers_may_say_is_less_than_an_asker_takes(node: Flooded) -> None:
    """With the bounds as they are: they log each of their statements twice."""
    for rival in RIVALS:
        said = [long(rival, number, 48_000) for number in range(130)]
        node.say("rival", rival.inception, rival.publish("a/b@v1", RELEASE), *said)
        node.copy_log(f"{rival.id[:12]}.example/log", rival.inception, *said)
    found = await node.claims()
    assert node.of_publisher(found) == 3 and of(node, "member", found) == 2
    assert size_of(found) < limits.ANSWER / 2
