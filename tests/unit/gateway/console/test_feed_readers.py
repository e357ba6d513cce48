"""What a feed has for a reader whose token covers some repositories: the warnings that concern these, and no other."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console import state
from comity.gateway.console.feeds import Feeds
from comity.gateway.console.publisher_feed import PublisherFeeds
from comity.gateway.console.state import StateReader
from comity.ledger.ledger import Ledger
from comity.node.members import Membership, OwnNode
from comity.node.publisher_watch import Concern, FoundConcerns
from comity.node.statement_groups import StatementGroups
from comity.node.threads import AsyncLedger, Pools
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise
from starlette.requests import Request
from support.case import nodes, release
from support.logs import LogKeys
from support.world import NOW, Identity, found, identity

CH, SG = PEERS = nodes(2)
HOME = LogKeys(CH.origin, CH.log)
OWN, OTHER, ISSUER = (identity(name, "CH", algs=("ed25519",)) for name in ("Own", "Other", "Issuer"))
ATOM = "{http://www.w3.org/2005/Atom}"


class Console:
    """The feeds of a node, and what they answer to a token that reaches `reach`."""

    def __init__(self, folder: Path) -> None:
        self.reach: tuple[str, ...] = ("own/*",)
        self.tables = Ledger.open(folder, lambda: NOW)
        self.tables.logs.create(HOME.origin, HOME.vkey, own=True)
        self.pools, ledger = Pools(), AsyncLedger(self.tables)
        membership = Membership(OwnNode.parse(CH.seat.entry.line, CH.entry.line), found(PEERS))
        config = SimpleNamespace(path=lambda name: folder / name, gateway=SimpleNamespace(url="https://a.example"))
        home: Any = SimpleNamespace(
            config=config, membership=membership, ledger=ledger, pools=self.pools, clock=lambda: float(NOW)
        )
        index: Any = SimpleNamespace(ready=True)
        states = StateReader(home, cast(Any, None), index, cast(Any, None))
        access: Any = SimpleNamespace(require_any=self.token)
        access.readable_part = partial(GatewayAccess.readable_part, access)
        self.feeds = Feeds(home, states, access, StatementGroups(self.tables.proven, membership))
        watch: Any = SimpleNamespace(watch=SimpleNamespace(concerns=self.concerns))
        self.of_publishers = PublisherFeeds(home, watch, states, access)
        self.say(*(line for each in PEERS for line in (each.seat.entry.line, each.entry.line)))
        self.say(*(each.entry.line for each in (OWN, OTHER, ISSUER)))

    async def token(self, request: Request) -> Any:
        def allows(name: str) -> bool:
            return f"{name.partition('/')[0]}/*" in self.reach

        return SimpleNamespace(reach=self.reach, allows=allows)

    def concerns(self, identity: Digest, most: int) -> FoundConcerns:
        """Every statement under an identity concerns it."""
        lines = self.tables.proven.since(0, tuple(state.STATEMENTS), 1_000)
        said = [line for line in lines if (by := parse_entry(line.line).statement.by) and by.id == identity]
        return FoundConcerns(tuple(Concern(identity, "own", identity, line.number) for line in said), more=False)

    def say(self, *lines: bytes) -> None:
        self.tables.logs.append(HOME.vkey, lines)

    def publish(self, name: str, by: Identity, content: bytes) -> Digest:
        published, entry, _, _ = release({"model.gguf": content}, by=by, name=name)
        self.say(entry.line)
        return published.artifact

    def warn(self, subject: Digest, text: str, by: Identity = ISSUER) -> None:
        said = Advisory(by.inception.author, subject, "vulnerability", "high", text)
        self.say(sign_content(said, by.signer).line)

    def lose_key(self, who: Identity, text: str) -> None:
        lost = Compromise(who.signer.public.id, who.inception.home, 0)
        said = Advisory(who.inception.author, who.id, KEY_COMPROMISE, "critical", text, lost)
        self.say(sign_content(said, who.signer).line)

    async def warnings(self) -> dict[str, str]:
        """The titles in the feed of warnings, by the words of each."""
        while await self.feeds.step():
            pass
        feed = await self.feeds.feed(asking(kind="advisories"))
        entries = ET.fromstring(bytes(feed.body)).findall(f"{ATOM}entry")
        said = ((each.findtext(f"{ATOM}summary") or "", each.findtext(f"{ATOM}title") or "") for each in entries)
        return {summary.partition(": ")[2].partition(" Claimed")[0]: title for summary, title in said}

    async def told(self, publisher: Identity) -> list[str]:
        """The titles in the feed of a publisher."""
        feed = await self.of_publishers.feed(asking(identity=publisher.id))
        return [each.text or "" for each in ET.fromstring(bytes(feed.body)).findall(f"{ATOM}entry/{ATOM}title")]

    def close(self) -> None:
        self.pools.close()
        self.tables.close()


def asking(**params: str) -> Request:
    return Request({"type": "http", "method": "GET", "path": "/x", "headers": [], "path_params": params})


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    made = Console(tmp_path)
    yield made
    made.close()


async def test_a_warning_is_seen_under_the_name_that_the_reader_may_read(console: Console) -> None:
    """The artifact was called by the name that was published first, and a token for another one saw nothing."""
    shared = console.publish("other/first@v1", OTHER, b"shared")
    assert console.publish("own/second@v1", OWN, b"shared") == shared
    console.warn(shared, "of both")
    console.warn(console.publish("other/alone@v1", OTHER, b"alone"), "of the other")
    console.warn(sha256(b"unknown"), "of nothing here")
    assert await console.warnings() == {"of both": "Warning about own/second@v1"}
    console.reach = ("other/*",)
    assert await console.warnings() == {
        "of both": "Warning about other/first@v1",
        "of the other": "Warning about other/alone@v1",
    }
    console.reach = ("*",)
    assert set(await console.warnings()) == {"of both", "of the other", "of nothing here"}


async def test_a_warning_that_came_before_the_name_is_seen_once_there_is_one(console: Console) -> None:
    published, entry, _, _ = release({"model.gguf": b"later"}, by=OWN, name="own/later@v1")
    console.warn(published.artifact, "too early")
    assert await console.warnings() == {}
    console.say(entry.line)
    assert await console.warnings() == {"too early": "Warning about own/later@v1"}


async def test_warnings_about_publishers_members_and_nodes_are_seen(console: Console) -> None:
    console.publish("own/model@v1", OWN, b"own")
    console.publish("other/model@v1", OTHER, b"other")
    for who, text in ((OWN, "stolen"), (OTHER, "stolen elsewhere"), (SG.seat, "of a member")):
        console.lose_key(who, text)
    console.warn(OWN.id, "of the publisher")
    console.warn(OTHER.id, "of another publisher")
    console.warn(SG.record.node.id, "of a node")
    titles = await console.warnings()
    assert set(titles) == {"stolen", "of a member", "of the publisher", "of a node"}
    assert titles["stolen"].startswith("Warning about a key of Own")


@pytest.mark.parametrize("names", [state.MAX_NAMES, state.MAX_NAMES + 1])
async def test_no_number_of_names_hides_a_warning(console: Console, names: int) -> None:
    artifact = console.publish("own/model@v1", OWN, b"own")
    for number in range(names):
        console.publish(f"other/copy{number}@v1", OTHER, b"own")
    console.warn(artifact, "of many")
    assert set(await console.warnings()) == {"of many"}
    console.reach = ("third/*",)
    ((text, title),) = (await console.warnings()).items()
    assert text == "of many" and title.startswith("Warning about sha256:")


async def test_the_feed_of_a_publisher_has_its_keys_for_a_reader_of_its_repositories(console: Console) -> None:
    console.publish("own/model@v1", OWN, b"own")
    console.lose_key(OWN, "stolen")
    wanted = ["Under this identity: a key of Own", "Under this identity: own/model@v1"]
    titles = await console.told(OWN)
    assert all(any(title.startswith(each) for title in titles) for each in wanted), titles
    console.reach = ("other/*",)
    assert await console.told(OWN) == []
