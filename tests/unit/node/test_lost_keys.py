"""Lost keys of publishers whose artifacts are held here: which reports count, and of what they are told."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from comity.ledger.copy_tables import OwnClaim
from comity.ledger.ledger import Ledger
from comity.node import lost_keys
from comity.node.intake import LineProver
from comity.node.lost_keys import FoundLostKeys, LostKey, LostKeys
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Precedence
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject
from comity.trust.statements import Advisory, Compromise, Licence, Published
from support.logs import LogKeys
from support.rotations import CLASSICAL
from support.world import Identity, identity

FAR = LogKeys.generate("far.example/log")
OWNER, OTHER = identity("Owner", algs=CLASSICAL), identity("Other", algs=CLASSICAL)
LOST = Compromise(OWNER.signer.public.id, FAR.origin, 0)
ARTIFACTS = [sha256(b"artifact %d" % number) for number in range(4)]


class Node:
    """A ledger in which lines are proven, and copies are claimed."""

    def __init__(self, folder: Path) -> None:
        self.ledger = AsyncLedger(Ledger.open(folder, lambda: 1_000))
        self.lines: list[bytes] = []
        self.ledger.tables.logs.create(FAR.origin, FAR.vkey)
        self.members: tuple[Digest, ...] = ()
        self.keys = LostKeys(self.ledger, lambda: Precedence(members=frozenset(self.members)))

    def say(self, *entries: Entry) -> None:
        had = len(self.lines)
        self.lines += [entry.line for entry in entries]
        self.ledger.tables.logs.advance(FAR.vkey, had, self.lines[had:], FAR.note_over(self.lines))
        LineProver(self.ledger.tables, lambda who: ()).finish_all()

    def hold(self, *artifacts: Digest, stands: bool = True) -> None:
        claims = [OwnClaim(artifact, index, stands) for index, artifact in enumerate(artifacts, 1)]
        self.ledger.tables.replicas.add_claims(claims, sha256(b"basis"), {})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.ledger.close()


def published(by: Identity, number: int, version: str = "") -> Entry:
    manifest = SideObject(ARTIFACTS[number], 100)
    name = Name("acme", f"model-{number}", version or "v1")
    pieces = SideObject(sha256(b"pieces"), 1)
    return sign_content(Published(by.id, name, manifest.digest, manifest, pieces, Licence("MIT")), by.signer)


def report(
    by: Identity = OWNER, about: Digest | None = None, *, lost: Compromise | None = LOST, text: str = "it is gone"
) -> Entry:
    advisory = Advisory(Author("identity", by.id), about or by.id, "key-compromise", "high", text, lost)
    return sign_content(advisory, by.signer)


async def test_a_report_is_told_with_the_artifacts_that_are_held(node: Node) -> None:
    node.say(OWNER.entry, *(published(OWNER, number) for number in range(4)), published(OWNER, 0, "v2"), report())
    node.hold(ARTIFACTS[0], ARTIFACTS[2])
    assert await node.keys.now() == FoundLostKeys((LostKey(OWNER.id, "Owner", LOST, "it is gone", 2),))


async def test_a_publisher_of_whom_nothing_is_held_is_not_told(node: Node) -> None:
    node.say(OWNER.entry, OTHER.entry, published(OWNER, 0), published(OTHER, 1), report())
    node.hold(ARTIFACTS[1])
    assert await node.keys.now() == FoundLostKeys()
    node.hold(ARTIFACTS[0], stands=False)
    node.keys = LostKeys(node.ledger, Precedence)
    assert await node.keys.now() == FoundLostKeys()


async def test_only_what_an_identity_says_about_its_own_keys_counts(node: Node) -> None:
    node.say(OWNER.entry, OTHER.entry, published(OWNER, 0))
    node.say(report(OTHER, OWNER.id), report(OWNER, ARTIFACTS[0]), report(lost=None))
    node.hold(ARTIFACTS[0])
    assert await node.keys.now() == FoundLostKeys()


async def test_the_first_words_about_a_key_are_kept(node: Node) -> None:
    second = Compromise(OWNER.signer.public.id, FAR.origin, 5)
    node.say(
        OWNER.entry, published(OWNER, 0), report(text="first"), report(text="again"), report(lost=second, text="5")
    )
    node.hold(ARTIFACTS[0])
    found = await node.keys.now()
    assert [(each.compromise, each.text) for each in found.found] == [(LOST, "first"), (second, "5")]


async def test_new_reports_are_told_at_once_and_new_copies_after_the_interval(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.say(OWNER.entry, OTHER.entry, published(OWNER, 0), published(OWNER, 1), published(OTHER, 2), report())
    node.hold(ARTIFACTS[0])
    assert [each.held for each in (await node.keys.now()).found] == [1]
    node.hold(ARTIFACTS[1], ARTIFACTS[2])
    assert [each.held for each in (await node.keys.now()).found] == [1]
    node.say(report(OTHER))
    assert [(each.label, each.held) for each in (await node.keys.now()).found] == [("Owner", 2), ("Other", 1)]
    node.hold(ARTIFACTS[3])
    node.say(published(OWNER, 3))
    monkeypatch.setattr(node.keys, "_due", float("-inf"))
    assert [each.held for each in (await node.keys.now()).found] == [3, 1]


def lost_at(by: Identity, *indexes: int) -> list[Compromise]:
    return [Compromise(by.signer.public.id, FAR.origin, index) for index in indexes]


async def settled(node: Node) -> FoundLostKeys:
    """What is found once everything was read and counted."""
    while not (found := await node.keys.now()).complete:
        pass
    return found


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_only_so_many_reports_of_one_publisher_are_remembered(
    node: Node, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(lost_keys, "OF_ONE", most)
    monkeypatch.setattr(lost_keys, "STEP", 1)  # each step reads on
    several = lost_at(OWNER, 0, 1)
    node.say(OWNER.entry, published(OWNER, 0), *(report(lost=lost) for lost in several), report(lost=several[0]))
    node.hold(ARTIFACTS[0])
    found = await node.keys.now()
    assert [each.compromise for each in found.found] == several[:most]
    assert found.more == (most < 2)


async def test_a_publisher_with_many_reports_hides_no_other_and_is_counted_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.say(OWNER.entry, OTHER.entry, published(OWNER, 0), published(OTHER, 1))
    node.say(*(report(OTHER, lost=lost) for lost in lost_at(OTHER, *range(300))), report())
    node.hold(*ARTIFACTS)
    asked = list[Digest]()
    count = node.ledger.tables.key_notices.held_of

    def counted(publishers: Collection[Digest], most: int) -> dict[Digest, int]:
        asked.extend(publishers)
        return count(publishers, most)

    monkeypatch.setattr(node.ledger.tables.key_notices, "held_of", counted)
    found = await node.keys.now()
    assert [each.publisher for each in found.found] == [OTHER.id, OWNER.id, *[OTHER.id] * (lost_keys.OF_ONE - 1)]
    assert found.more and found.complete
    assert sorted(asked) == sorted([OWNER.id, OTHER.id])


async def test_members_come_first_also_where_no_other_publisher_is_remembered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_keys, "MAX_PUBLISHERS", 2)
    strangers = [identity(f"Stranger {number}", algs=CLASSICAL) for number in range(3)]
    node.say(*(each.entry for each in (*strangers, OWNER)), *(published(each, 0) for each in (*strangers, OWNER)))
    node.say(*(report(each) for each in strangers))
    node.hold(ARTIFACTS[0])
    found = await node.keys.now()
    assert ([each.publisher for each in found.found], found.more) == ([each.id for each in strangers[:2]], True)
    node.members = (OWNER.id,)
    node.say(report())
    found = await settled(node)
    assert [each.publisher for each in found.found] == [OWNER.id, strangers[0].id]


async def test_a_look_does_a_bounded_part_and_later_ones_the_rest(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEP", 2), ("STEPS", 2), ("COUNTED", 1)):
        monkeypatch.setattr(lost_keys, name, value)
    publishers = [OWNER, OTHER]
    node.say(*(each.entry for each in publishers), *(published(each, 0) for each in publishers))
    node.say(*(report(lost=lost) for lost in lost_at(OWNER, *range(5))), report(OTHER))
    node.hold(ARTIFACTS[0])
    first = await node.keys.now()
    assert {each.publisher for each in first.found} == {OWNER.id} and not first.complete
    second = await node.keys.now()
    assert {each.publisher for each in second.found} == {OWNER.id, OTHER.id} and second.complete
