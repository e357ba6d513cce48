"""Ten thousand junk statements about an artifact, its publisher and its name, before and after the words that count:
every way to the artifact shows the same words of the publisher, of members and of those whom the policy names, in
answers that stay within their bounds of bytes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from comity.content.secrets import read_signer
from comity.gateway.app import serve_gateway
from comity.gateway.console import artifact as pages
from comity.gateway.console import feeds
from comity.gateway.hub import judge, routes
from comity.ledger import subject_reads
from comity.node import webhook_deliveries
from comity.node.home import OpenedHome
from comity.node.ledger_mark import LEDGER_MARK
from comity.node.maintenance.home_files import add_webhook
from comity.node.projection import FIRST
from comity.node.services import selections
from comity.node.webhook_deliveries import EventQueue
from comity.rules.precedence import Bounds
from comity.trust.encoding import Digest, format_time
from comity.trust.errors import ComityError
from comity.trust.evidence import Verdict
from comity.trust.statement import Author
from comity.verifier import read_policy
from comity_client.client import Client
from comity_client.events import Event, PolicyJudged
from comity_client.home import Home
from support.federation import Founded, NodeHome, found, serving, until
from support.flooding import FLOODS, LICENCE, OF_ISSUER, OF_MEMBER, STOLEN, WITHDRAWN, WORDS, Adviser, Subject
from support.publisher import Publisher, Release, release
from support.short_form import cases
from support.waiting import PATIENCE
from support.world import identity

NAME = "lab/tiny"
PUBLISHER, ISSUER = identity("Lab"), identity("Warnings")
SETTLED = 480.0
"""Seconds after which a node has proven and listed what is in its log."""


@dataclass(frozen=True)
class Shown:
    """What a door shows: the words that count, what else must be the same, and the bytes of all of it."""

    words: frozenset[str]
    state: str = ""
    size: int = 0

    @classmethod
    def of(cls, text: str, state: str = "") -> Shown:
        return cls(frozenset(word for word in WORDS if word in text), state, len(text.encode()))


def founded_at(folder: Path) -> tuple[Founded, tuple[Release, Release], Subject]:
    """A federation whose first node runs, two versions of one name, and who advise about them. The charter binds the
    namespace: to whom another name belongs, those decide who claim it first."""
    founded = found(folder, 3, namespaces={"lab": PUBLISHER.id})
    publisher = Publisher(PUBLISHER.signer, PUBLISHER.inception, PUBLISHER.entry.line)
    releases = []
    for version in ("v1", "v2"):
        source = folder / version
        source.mkdir()
        (source / "config.json").write_text(f'{{"version": "{version}"}}\n')
        releases.append(release(publisher, source, f"{NAME}@{version}"))
    good, withdrawn = releases
    member, loud = (
        Adviser(Author("identity", home.record.member), read_signer(home.directory / "offline" / "governance.pem"))
        for home in founded.homes[1:]
    )
    lines = tuple(each.entry.line for each in releases)
    subject = Subject(NAME, good.artifact, withdrawn.artifact, lines, PUBLISHER, ISSUER, member, loud)
    return founded, (good, withdrawn), subject


def prepared(folder: Path, floods: Sequence[str], count: int) -> tuple[Founded, Subject, list[bytes]]:
    """The first node has in its log what counts, between two floods; its webhook is to be told of all of it."""
    founded, releases, subject = founded_at(folder)
    home = founded.homes[0]
    policy = (
        f'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n[publishers]\naccept = ["{PUBLISHER.id}"]\n'
        f'[advisories]\nrefuse_from = ["{ISSUER.id}"]\n[cosigners]\nat_least = 0\n'
        f"[time]\nas_of = {format_time(int(time.time()))}\n"
        '[rows]\nrequire = ["artifact", "signatures", "transparency"]\n'
    )
    (home.directory / "policy.toml").write_text(policy)
    add_webhook(home.directory / "node.toml", "ops", "http://127.0.0.1:9/", ("advisory",), {})
    home.set("webhooks", file="webhooks.toml")
    home.set("gateway", policy="policy.toml", console=True)
    opened = OpenedHome.open(home.config(), time.time)
    for each in releases:
        for digest, data in each.objects.items():
            opened.store.put(digest, data)
        for digest, path in each.blobs.items():
            opened.store.put(digest, path.read_bytes())
    opened.mark(LEDGER_MARK).write()
    log, honest = opened.membership.own_node.log, subject.honest(home.origin)
    for lines in ([*subject.junk(floods, 0, count)], honest, [*subject.junk(floods, count, count)]):
        for start in range(0, len(lines), 500):
            opened.ledger.tables.logs.append(log, lines[start : start + 500])
    opened.close()
    with closing(EventQueue(home.directory / "data")) as queue:
        queue.add((), (), "", 0.0, FIRST)
    return founded, subject, honest


def texts_of(verdict: Verdict) -> str:
    return json.dumps([row.to_json() for row in verdict.rows])


def by_client(client: Client, policy: Path, version: str, to: Path) -> dict[str, Shown]:
    """Pull, verify and show."""
    name, judged = f"{NAME}@{version}", list[Verdict]()

    def note(event: Event) -> None:
        if isinstance(event, PolicyJudged):
            judged.append(event.verdict)

    state = "accepted"
    try:
        client.pull(name, to=to, policy=read_policy(policy)[0], on_event=note)
    except ComityError as error:
        state = f"{error.code}"
    doors = {f"pull {version}": Shown.of(texts_of(judged[-1]), state)}
    if state == "accepted":
        verdict = client.verify(to, policy=read_policy(policy)[0])
        doors[f"verify {version}"] = Shown.of(texts_of(verdict), str(verdict.exit_status))
    info = client.show(name, policy=read_policy(policy)[0])
    said = [*(each.text for each in info.advisories), *(each.text for each in info.lost_keys)]
    return doors | {f"show {version}": Shown.of(str(said), info.artifact)}


async def by_http(url: str) -> dict[str, Shown]:
    doors, html = {}, {"Accept": "text/html"}
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        main = await http.get(f"/api/models/{NAME}/revision/main")
        doors["gateway main"] = Shown.of(f"{main.headers} {main.text}", f"{main.status_code} {main.json().get('sha')}")
        for version in ("v1", "v2"):
            file = await http.get(f"/{NAME}/resolve/{version}/config.json")
            doors[f"gateway {version}"] = Shown.of(f"{file.headers} {file.text}", str(file.status_code))
            page = await http.get(f"/{NAME}/tree/{version}", headers=html)
            doors[f"console {version}"] = Shown.of(page.text, str(page.status_code))
        doors["feed"] = Shown.of((await http.get("/-/feeds/advisories.atom")).text)
    return doors


async def by_node(home: NodeHome, subject: Subject, said: Sequence[bytes]) -> dict[str, Shown]:
    named, honest = [PUBLISHER.id, ISSUER.id], {line: str(at) for at, line in enumerate(said)}
    doors = {}
    async with home.client() as node:
        for door, answer in (
            ("Resolve", node.resolve(NAME, None, None, named)),
            ("claims of v1", node.claims(subject.good, named)),
            ("claims of v2", node.claims(subject.withdrawn, named)),
            ("claims of the publisher", node.claims(Digest(PUBLISHER.id), named)),
        ):
            lines = [located.line for located in await answer]
            size = sum(map(len, lines))
            doors[door] = Shown(frozenset(honest[line] for line in lines if line in honest), size=size)
    return doors


def by_webhook(home: NodeHome) -> dict[str, Shown]:
    with closing(EventQueue(home.directory / "data")) as queue:
        due = queue.due("ops", time.time() + 1e9, 10_000)
    return {"webhook": Shown.of(" ".join(event.body.decode() for event in due))}


async def asked(folder: Path, floods: Sequence[str], count: int, usual: dict[str, Shown]) -> dict[str, Shown]:
    """What every door shows, once it is as `usual`, or has all words."""
    founded, subject, honest = prepared(folder, floods, count)
    home, client = founded.homes[0], Client(Home(folder / "user"))
    await asyncio.to_thread(client.pin, founded.federation.encode())
    doors: dict[str, Shown] = {}
    async with serving(home, companion=serve_gateway) as (listening,):

        async def settled() -> bool:
            doors.update(await by_node(home, subject, honest) | await by_http(listening.http) | by_webhook(home))
            if usual:
                return not differences(doors, usual)
            return (
                doors["feed"].words == doors["webhook"].words == frozenset(WORDS)
                and "200" in doors["gateway main"].state
            )

        try:
            await until(settled, patience=SETTLED)
        except AssertionError as error:
            raise AssertionError(f"{differences(doors, usual) or doors}") from error
        for version in ("v1", "v2"):
            policy = home.directory / "policy.toml"
            doors |= await asyncio.to_thread(by_client, client, policy, version, folder / "pulled" / version)
    return doors


def differences(doors: dict[str, Shown], usual: dict[str, Shown]) -> list[str]:
    """Where other words or another state are shown."""
    found = []
    for door, shown in doors.items():
        known = usual.get(door, shown)
        if shown.words != known.words or shown.state != known.state:
            found.append(f"{door}: {sorted(shown.words)} {shown.state} against {sorted(known.words)} {known.state}")
    return found


ENTRY = 4 * 1024
"""Bytes with which a list shows one statement of the flood at most: its text has 1,500 characters."""


def most_bytes(door: str, usual: int) -> int:
    """The bound of a door that has `usual` bytes without a flood. Source: protocol, section 9; the limits of each
    list."""
    if door == "Resolve" or door.startswith("claims"):
        first = usual + max(selections.LEAST_MEMBER, usual // 2)  # with what one loud member says
        return first + max(selections.LEAST_OTHERS, first)
    if door == "feed":
        return feeds.MAX_ENTRIES * ENTRY
    if door == "webhook":
        return webhook_deliveries.MAX_WAITING * ENTRY
    if door.startswith("gateway"):
        return usual + judge.MAX_NOTICES * (routes.MAX_NOTICE + len("x-hf-warning: "))
    said = Bounds().member + Bounds().others
    if door.startswith("console"):
        return usual + (pages.MAX_STATEMENTS + said) * ENTRY
    return usual + said * ENTRY  # pull, verify and show


def too_large(doors: dict[str, Shown], usual: dict[str, Shown]) -> list[str]:
    sizes = ((door, shown.size, most_bytes(door, usual[door].size)) for door, shown in doors.items())
    return [f"{door}: {size} bytes, at most {most}" for door, size, most in sizes if size > most]


EXPECTED = {
    "gateway main": {LICENCE, STOLEN, OF_MEMBER},
    "pull v1": {LICENCE, STOLEN, OF_MEMBER},
    "pull v2": {WITHDRAWN, STOLEN, OF_ISSUER},
    "show v1": {LICENCE, STOLEN, OF_MEMBER},
    "show v2": {WITHDRAWN, STOLEN, OF_ISSUER},
}


async def check(folder: Path, floods: Sequence[str], count: int) -> None:
    usual = await asked(folder / "quiet", (), 0, {})
    for door, words in EXPECTED.items():
        assert usual[door].words == words, door
    assert all(usual[door].words for door in ("verify v1", "show v2", "gateway v1", "console v1")), usual
    flooded = await asked(folder / "loud", floods, count, usual)
    assert not differences(flooded, usual)
    assert not too_large(usual, usual)
    assert not too_large(flooded, usual)


@pytest.mark.slow
async def test_a_flood_hides_no_word_that_counts_at_any_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_reads, "FEW", 20)
    monkeypatch.setattr(feeds, "MAX_ENTRIES", 20)
    monkeypatch.setattr(webhook_deliveries, "MAX_WAITING", 20)
    await check(tmp_path, FLOODS, 30)


@pytest.mark.slow
@pytest.mark.parametrize("whose", cases(FLOODS, ["fresh"]))
async def test_two_thousand_statements_hide_no_word_that_counts_at_any_door(whose: str, tmp_path: Path) -> None:
    await check(tmp_path, [whose], 1_000)


@pytest.mark.long
@pytest.mark.parametrize("whose", FLOODS)
async def test_ten_thousand_statements_hide_no_word_that_counts_at_any_door(whose: str, tmp_path: Path) -> None:
    await check(tmp_path, [whose], 5_000)
