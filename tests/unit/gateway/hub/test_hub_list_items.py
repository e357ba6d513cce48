"""Items of the Hub's list: made once, kept in a file, and made again only when a statement is about them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.gateway.hub import list_items
from comity.gateway.hub.card import Card
from comity.gateway.hub.list_file import FILE_NAME, KEPT, KeptItem
from comity.gateway.hub.list_items import REFUSED_KEPT, SETTLED, ListItems, kept_list
from comity.gateway.hub.views import Snapshot
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.charter.votes import adopted_statement
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.statement import sign_statement
from support.case import nodes
from support.logs import LogKeys, statement_line
from support.world import found

PUBLISHER, OTHER = Identity.made("publisher"), Identity.made("other")
OWN = LogKeys.generate("own.example/log")


class Listed:
    """A ledger, a catalogue that counts its judgements, and clocks that the test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now, self.judged = folder, 1_000_000.0, list[str]()
        self.proven, self.made, self.while_made = set[str](), list[str](), list[bytes]()
        self.refused, self.complete, self.own_policy = set[str](), True, False
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.membership: Any = SimpleNamespace(body=None, node_ids=(), records_digest="")
        self.pools = Pools()
        monkeypatch.setattr(list_items, "CHECK_INTERVAL", 0.0)
        self.settled(monkeypatch, at_once=True)

    def settled(self, monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> None:
        monkeypatch.setattr(list_items, "SETTLED", -1.0 if at_once else SETTLED)

    def list_items(self) -> ListItems:
        judge = SimpleNamespace(by_own_policy=self.own_policy, basis="")
        local = SimpleNamespace(manifest=lambda item: self._manifest(item.digest))
        catalogue: Any = SimpleNamespace(judge=judge, local_artifacts=local, snapshot=self._snapshot)
        cards: Any = SimpleNamespace(card=self._card, complete=self._complete)
        proven: Any = SimpleNamespace(make=self._make_proven)
        home: Any = SimpleNamespace(
            config=SimpleNamespace(storage=SimpleNamespace(ledger=self.folder / "ledger.sqlite")),
            ledger=AsyncLedger(self.ledger),
            pools=self.pools,
            membership=self.membership,
            clock=lambda: self.now,
        )
        return ListItems(home, catalogue, cards, proven)

    def say(self, *lines: bytes) -> None:
        self.ledger.logs.append(OWN.vkey, lines)

    async def ids(self, items: ListItems, *names: str, siblings: bool = False) -> list[str]:
        """The listed ids; `judged` is the number of judgements that they needed."""
        self.judged.clear()
        return [item["id"] for item in await items.items(names, siblings=siblings)]

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()

    async def _snapshot(self, name: str, revision: str) -> Snapshot:
        self.judged.append(name)
        if name in self.refused:
            raise NotFound("not served")
        manifest = Manifest.of([FileEntry("m.gguf", 5, sha256(name.encode()))])
        claim: Any = SimpleNamespace(by=PUBLISHER.id)
        return Snapshot(name, manifest.digest, claim, "v1", "MIT", "Publisher", manifest, "c" * 40, {}, ())

    async def _make_proven(self, names: Sequence[str]) -> list[KeptItem]:
        """Items without a judge, of the names in `proven`; the lines of `while_made` are logged meanwhile."""
        made = [name for name in names if name in self.proven]
        self.made += made
        if made:
            self.say(*self.while_made)
            self.while_made = []
        return [KeptItem(name, sha256(name.encode()), PUBLISHER.id, 1, 0, f'{{"id":"{name}"}}') for name in made]

    def _manifest(self, digest: Digest) -> Manifest:
        found = (Manifest.of([FileEntry("m.gguf", 5, sha256(name.encode()))]) for name in ("a/one", "a/two"))
        return next(manifest for manifest in found if manifest.digest == digest)

    async def _card(self, artifact: Digest, manifest: Manifest) -> Card:
        return Card("", "", ("gguf",))

    async def _complete(self, manifest: Manifest) -> bool:
        return self.complete


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listed]:
    made = Listed(tmp_path, monkeypatch)
    made.say(PUBLISHER.publish("a/one@v1", Release(b"1")), PUBLISHER.publish("a/two@v1", Release(b"2")))
    yield made
    made.close()


async def test_a_judged_item_is_listed_without_judging_also_after_a_start(listed: Listed) -> None:
    items = listed.list_items()
    assert await listed.ids(items, "a/one", "a/two") == ["a/one", "a/two"]
    assert listed.judged == ["a/one", "a/two"]
    first = await items.items(["a/one"], siblings=False)
    items.close()
    again = listed.list_items()
    assert await listed.ids(again, "a/one", "a/two") == ["a/one", "a/two"]
    assert listed.judged == []
    assert await again.items(["a/one"], siblings=False) == first
    again.close()


async def test_the_files_are_those_of_the_manifest(listed: Listed) -> None:
    items = listed.list_items()
    made = await items.items(["a/one"], siblings=True)
    kept = await items.items(["a/one"], siblings=True)
    assert made == kept
    assert kept[0]["siblings"] == [{"rfilename": "m.gguf"}]
    items.close()


async def test_an_unreadable_file_is_an_error_that_the_loop_handles(listed: Listed) -> None:
    """Any other exception would end the loop that makes items ahead for good, without a message."""
    items = listed.list_items()
    await listed.ids(items, "a/one")
    items.close()
    with pytest.raises(Unavailable):
        await items._pass()


async def test_a_statement_about_a_name_makes_its_item_again_and_no_other_of_its_publisher(listed: Listed) -> None:
    items = listed.list_items()
    await listed.ids(items, "a/one", "a/two")
    listed.say(PUBLISHER.publish("A/One@v2", Release(b"3")))
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/one"]
    listed.say(OTHER.publish("a/two@v1", Release(b"4")))
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/two"]
    items.close()


async def test_a_statement_about_an_artifact_and_a_change_of_keys_make_items_again(listed: Listed) -> None:
    items = listed.list_items()
    await listed.ids(items, "a/one", "a/two")
    artifact = (await listed._snapshot("a/two", "main")).artifact
    listed.say(listed_line("vouched", artifact))
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/two"]
    listed.say(listed_line("vouched", Digest(PUBLISHER.id)))  # as an advisory about keys is
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/one", "a/two"]
    items.close()


async def test_what_a_member_logs_about_itself_removes_no_item_until_a_followed_record_changes(listed: Listed) -> None:
    """One `adopted` a second would have the whole list made again each second."""
    node = nodes(1)[0]
    items = listed.list_items()
    await listed.ids(items, "a/one", "a/two")
    body = found(nodes()).chain[0]
    listed.say(sign_statement(adopted_statement(body, node.record.node.id), node.online).line, node.entry.line)
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == []
    listed.membership.records_digest = sha256(b"another record")
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/one", "a/two"]
    items.close()


async def test_new_members_another_ledger_and_a_damaged_file_make_all_items_again(
    listed: Listed, tmp_path: Path
) -> None:
    items = listed.list_items()
    await listed.ids(items, "a/one")
    listed.membership.node_ids = (PUBLISHER.id,)
    await listed.ids(items, "a/one")
    assert listed.judged == ["a/one"]
    items.close()
    listed.ledger.close()
    for file in tmp_path.glob("ledger*"):
        file.unlink()
    listed.ledger = Ledger.open(tmp_path, lambda: 1_000)
    listed.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
    listed.say(PUBLISHER.publish("a/one@v9", Release(b"9")))
    items = listed.list_items()
    await listed.ids(items, "a/one")
    assert listed.judged == ["a/one"]
    items.close()
    (tmp_path / FILE_NAME).write_bytes(b"damaged" * 1_000)
    items = listed.list_items()
    assert await listed.ids(items, "a/one") == ["a/one"]
    items.close()


async def test_a_refused_item_is_judged_again_soon_and_one_that_time_may_change_later(listed: Listed) -> None:
    listed.refused = {"a/one"}
    listed.complete = False
    items = listed.list_items()
    assert await listed.ids(items, "a/one", "a/two") == ["a/two"]
    assert await listed.ids(items, "a/one", "a/two") == ["a/two"]
    assert listed.judged == []
    listed.now += REFUSED_KEPT
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/one"]
    listed.now += KEPT
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == ["a/one", "a/two"]
    items.close()


async def test_under_a_policy_of_the_owner_an_item_is_kept_for_ten_minutes(listed: Listed) -> None:
    listed.own_policy = True
    items = listed.list_items()
    for later, judged in ((0, ["a/one"]), (KEPT - 1, []), (1, ["a/one"])):
        listed.now += later
        await listed.ids(items, "a/one")
        assert listed.judged == judged
    items.close()


async def test_an_item_is_not_kept_while_its_subjects_change(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    items = listed.list_items()
    await items.items(["a/two"], siblings=False)
    listed.settled(monkeypatch, at_once=False)
    listed.say(PUBLISHER.publish("a/one@v2", Release(b"3")))
    for _ in range(2):  # an answer of the catalogue may be older than the statement
        await listed.ids(items, "a/one", "a/two")
        assert listed.judged == ["a/one"]
    items.close()


async def test_many_new_statements_are_followed_in_steps_and_nothing_old_is_shown(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = listed.list_items()
    await listed.ids(items, "a/one", "a/two")
    monkeypatch.setattr(list_items, "STEP", 2)
    listed.say(*(PUBLISHER.publish(f"b/{number}@v1", Release(b"%d" % number)) for number in range(10, 15)))
    listed.say(PUBLISHER.publish("a/two@v3", Release(b"z")))
    judged = []
    for _ in range(5):
        await listed.ids(items, "a/two")
        judged.append(list(listed.judged))
    assert judged[0] == ["a/two"] and judged[-1] == []
    items.close()


async def test_the_background_task_makes_missing_items(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_items, "NAMES", 1)
    items = listed.list_items()
    await listed.ids(items, "a/two")
    listed.judged.clear()
    supervisor = Supervisor(Metrics())
    items.begin(supervisor)
    while "a/one" not in listed.judged:
        await asyncio.sleep(0)
    while len(await items._kept(["a/one", "a/two"])) < 2:
        await asyncio.sleep(0)
    await supervisor.stop()
    await listed.ids(items, "a/one", "a/two")
    assert listed.judged == []
    items.close()


async def test_an_unexpected_error_does_not_end_the_background_task(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_items, "PASSES", LoopTiming(interval=0.001, deadline=60.0, max_delay=0.001))
    items, asked = listed.list_items(), list[str]()

    async def names(*given: object) -> tuple[list[str], str]:
        asked.append("names")
        raise KeyError("unexpected")

    monkeypatch.setattr(items._names, "names", names)
    async with kept_list(items, Metrics()):
        while len(asked) < 3:
            await asyncio.sleep(0)


async def test_items_made_without_a_judge_are_listed_and_kept_and_others_are_judged(listed: Listed) -> None:
    listed.proven = {"a/one"}
    items = listed.list_items()
    assert await listed.ids(items, "a/two", "a/one") == ["a/two", "a/one"]
    assert (listed.judged, listed.made) == (["a/two"], ["a/one"])
    assert await listed.ids(items, "a/one") == ["a/one"]
    assert listed.made == ["a/one"]
    items.close()


async def test_an_item_made_while_a_statement_about_it_is_read_is_not_kept(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.settled(monkeypatch, at_once=False)
    listed.proven, listed.while_made = {"a/one", "a/two"}, [PUBLISHER.publish("a/one@v2", Release(b"3"))]
    items = listed.list_items()
    await listed.ids(items, "a/one", "a/two")
    await listed.ids(items, "a/one", "a/two")
    assert listed.made == ["a/one", "a/two", "a/one"]
    await listed.ids(items, "a/one", "a/two")
    assert listed.made == ["a/one", "a/two", "a/one"]  # what was made since includes the statement
    items.close()


async def test_an_item_that_takes_long_to_make_is_not_kept_either(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an earlier version, a statement that arrived while an item was made was forgotten after a few seconds, and the
    outdated item was kept.
    """
    monkeypatch.setattr(list_items, "SETTLED", 0.0)
    listed.proven, listed.while_made = {"a/one"}, [PUBLISHER.publish("a/one@v2", Release(b"3"))]
    items = listed.list_items()
    real = items._proven.make

    async def slowly(names: Sequence[str]) -> list[KeptItem]:
        made = await real(names)
        for _ in range(2):
            await items._follower.follow()
        return made

    monkeypatch.setattr(items._proven, "make", slowly)
    await listed.ids(items, "a/one")
    await listed.ids(items, "a/one")
    assert listed.made == ["a/one", "a/one"]
    items.close()


async def test_a_new_list_continues_from_the_newest_statement(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version read every statement since the beginning, although the list had no item to remove."""
    monkeypatch.setattr(list_items, "STEP", 2)
    listed.say(*(PUBLISHER.publish(f"b/{number}@v1", Release(b"%d" % number)) for number in range(10, 15)))
    items = listed.list_items()
    await listed.ids(items, "a/one")
    await listed.ids(items, "a/one")
    assert listed.judged == []
    listed.say(PUBLISHER.publish("a/one@v2", Release(b"3")))
    await listed.ids(items, "a/one")
    assert listed.judged == ["a/one"]
    items.close()


def listed_line(predicate: str, subject: Digest) -> bytes:
    return statement_line(1, predicate=predicate, subject=subject)
