"""One answer everywhere: for the same ledger, pins and policy, each way to an artifact gives the same rows, the same
decision and the same words.

Histories are generated: publications of several versions and of the same bytes, lineage, rotations, disputed ones,
lost keys, yanks, warnings of strangers, vouches, derivations, approvals and their ends. A node runs under each of
several policies, and a client asks it with the same policy.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from html import unescape
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from comity.gateway.app import serve_gateway
from comity.node.maintenance.home_files import add_webhook
from comity.trust.approvals import ApprovalEnded, Approved, sign_approval_ended, sign_approved
from comity.trust.encoding import Digest, format_time, sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import Verdict
from comity.trust.identity import Inception, KeySet, sign_inception
from comity.trust.keys import HybridSigner
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Author, Entry
from comity.trust.statements import (
    KEY_COMPROMISE,
    Advisory,
    Compromise,
    Licence,
    Parent,
    Published,
    Vouched,
    sign_advisory,
    sign_published,
    sign_vouched,
)
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.verifier import read_policy
from comity.wire.client import NodeClient
from comity_client.client import Client
from comity_client.events import Event, PolicyJudged
from comity_client.home import Home
from support.derivations import derived_line
from support.federation import NodeHome, found, serving, until
from support.publisher import Publisher, Release, release, send
from support.waiting import PATIENCE
from support.webhook_receiver import Receiver, receiving
from support.world import identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEDS = range(4)
STEPS = 12
KINDS = ("publish", "publish", "rotate", "dispute", "lose", "yank", "warn", "vouch", "derive", "approve", "end")
SETTLED = 60.0
"""Seconds after which answers that a node keeps have what was logged before."""
SCOPE = "site"
DAY = 86_400
SIGNED = ["artifact", "signatures", "transparency"]
STRANGER = identity("Checking lab", "ES")
OFFICER = identity("Anna")
OF_FILES = ("bytes", "file safety")
"""Rows about files: a pull has them all and inspects them, a gateway serves one after the other."""


@dataclass
class Owner:
    """A publisher whose keys may be changed, and of which an old key may be stolen."""

    label: str
    keys: list[HybridSigner] = field(default_factory=list)
    spare: list[HybridSigner] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    state: KeyState | None = None
    former: KeyState | None = None
    inception: Inception | None = None

    def begin(self, home: str) -> None:
        key, spare = HybridSigner.generate(), HybridSigner.generate()
        self.inception = Inception("publisher", KeySet((key.public,), 1), (spare.public.id,), home, "CH", self.label)
        self.keys, self.spare = [key], [spare]
        self.lines = [sign_inception(self.inception, key).line]
        self.state = KeyState.of_inception(self.inception)

    @property
    def id(self) -> Digest:
        assert self.inception is not None
        return self.inception.id

    @property
    def author(self) -> Author:
        return Author("identity", self.id)

    def rotated(self) -> bytes:
        assert self.state is not None
        key, spare = HybridSigner.generate(), HybridSigner.generate()
        line, state = self._rotation(self.state, key, spare, recovery=self.spare[-1])
        self.former, self.state = self.state, state
        self.keys.append(key)
        self.spare.append(spare)
        self.lines.append(line)
        return line

    def disputed(self) -> bytes | None:
        """Another rotation of the state that the last one replaced, by who stole its recovery key; None if there is no
        such state."""
        if self.former is None:
            return None
        key, spare = HybridSigner.generate(), HybridSigner.generate()
        return self._rotation(self.former, key, spare, recovery=self.spare[-2])[0]

    def _rotation(
        self, state: KeyState, key: HybridSigner, spare: HybridSigner, *, recovery: HybridSigner
    ) -> tuple[bytes, KeyState]:
        keys = KeySet((key.public,), 1)
        rotation = Rotation(self.id, (state.seq or 0) + 1, state.digest, keys, (spare.public.id,), "", ())
        line = rotate(state, rotation, [recovery], [key]).line
        return line, KeyState(self.id, keys, rotation.recovery, state.home, rotation.seq)

    def release(self, folder: Path, name: str, key: HybridSigner, spdx: str, lineage: tuple[Parent, ...]) -> Release:
        assert self.inception is not None
        made = release(Publisher(key, self.inception, self.lines[0]), folder, name)
        stated = Published.parse(made.entry.statement)
        published = replace(stated, licence=Licence(spdx, stated.licence.text), lineage=lineage)
        return replace(made, entry=sign_published(published, key))


POLICIES = {
    "lists key policy": f"[rows]\nrequire = {json.dumps([*SIGNED, 'key policy'])}\n",
    "lists no key policy": f'[advisories]\nrefuse_from = ["{STRANGER.id}"]\n[rows]\nrequire = {json.dumps(SIGNED)}\n',
    "reports lost keys, asks for approval": f"""[approvals]
scope = "{SCOPE}"
at_least = 1
[approvals.officers]
Anna = "{OFFICER.id}"
[lineage]
parents_by_digest = true
[licences]
accept = ["mit"]
[rows]
require = {json.dumps([*SIGNED, "licence"])}
""",
}


@dataclass(frozen=True)
class Scene:
    """A node with a policy, a client that asks it with the same policy, and its publishers, one for each history."""

    home: NodeHome
    client: Client
    policy: Path
    url: str
    owners: tuple[Owner, ...]
    receiver: Receiver

    def told(self) -> list[dict[str, str]]:
        """What the webhook of the node received: the data of each event, with its kind."""
        events = [json.loads(body) for _, body in list(self.receiver.got)]
        return [{**event["data"], "event": event["type"].split(".")[-2]} for event in events]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(POLICIES))
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("one")
    founded = found(folder / "nodes", 1)
    (home,) = founded.homes
    owners = tuple(Owner(f"Lab {seed}") for seed in SEEDS)
    for owner in owners:
        owner.begin(home.origin)
    relaxed = 'lost_keys = "report"\n' if "reports" in request.param else ""
    text = (
        f'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n[publishers]\n{relaxed}'
        f"accept = {json.dumps([owner.id for owner in owners])}\n[cosigners]\nat_least = 0\n"
        f"[time]\nas_of = {format_time(int(time.time()))}\n{POLICIES[request.param]}"
    )
    for place in (folder, home.directory):
        (place / "federation.json").write_bytes(founded.federation.encode())
        (place / "policy.toml").write_text(text)
    home.set("gateway", policy="policy.toml")
    home.set("webhooks", file="webhooks.toml")
    client = Client(Home(folder / "home"))
    await asyncio.to_thread(client.pin, founded.federation.encode())
    with receiving(204) as receiver:
        add_webhook(home.directory / "node.toml", "ops", receiver.url, ("version", "advisory", "alert"), {})
        async with serving(home, companion=serve_gateway) as (listening,):
            yield Scene(home, client, folder / "policy.toml", listening.http, owners, receiver)


@dataclass
class History:
    """What is logged about the artifacts of one publisher, one step after the other, as `draw` decides.

    Attributes:
        versions: with their artifacts.
        warned: texts of the publisher's warnings.
        notices: of lost keys.
    """

    scene: Scene
    node: NodeClient
    owner: Owner
    draw: random.Random
    sources: Path
    repository: str
    versions: dict[str, Digest] = field(default_factory=dict)
    approvals: list[Entry] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)
    notices: int = 0

    async def begin(self) -> None:
        await self.node.submit(self.owner.lines, ())
        await self.publish("v1")

    async def step(self, number: int) -> None:
        artifact = self.draw.choice(list(self.versions.values()))
        kind = self.draw.choice(KINDS)
        if kind == "publish":
            await self.publish(f"v{len(self.versions) + 1}")
        elif kind == "rotate" and len(self.owner.keys) < 3:
            await self.node.submit((self.owner.rotated(),), ())
        elif kind == "dispute" and (line := self.owner.disputed()) is not None:
            await self.node.submit((line,), ())
        elif kind == "lose":
            await self.lose_a_key(f"lost {number}")
        elif kind in ("yank", "warn", "vouch", "derive"):
            await self.node.submit((STRANGER.entry.line, self.said(kind, artifact, f"{kind} {number}")), ())
        elif kind in ("approve", "end"):
            await self.approve(artifact, end=kind == "end")

    async def publish(self, version: str) -> None:
        """A version with new bytes or old ones, by the newest key or an older one."""
        content = self.draw.choice(["a", "b", version])
        source = self.sources / content
        if not source.exists():
            source.mkdir(parents=True)
            (source / "config.json").write_text(f"{self.repository} {content}\n")
        parents, key = list(self.versions.values()), self.draw.choice(self.owner.keys)
        chosen = self.draw.choice(parents) if parents and self.draw.random() < 0.6 else None
        name, spdx = f"{self.repository}@{version}", self.draw.choice(["MIT", "Apache-2.0"])
        made = self.owner.release(source, name, key, spdx, ())
        if chosen not in (None, made.artifact):
            made = self.owner.release(source, name, key, spdx, (Parent("finetune", f"{self.repository}@base", chosen),))
        await send(self.node, made)
        self.versions[version] = made.artifact

    async def lose_a_key(self, text: str) -> None:
        origin = self.scene.home.origin
        note = await self.node.checkpoint(origin)
        size = Checkpoint.parse(SignedNote.parse(note).text).size
        lost = Compromise(self.draw.choice(self.owner.keys).public.id, origin, max(0, size - self.draw.randrange(8)))
        said = Advisory(self.owner.author, self.owner.id, KEY_COMPROMISE, "critical", text, lost)
        await self.node.submit((sign_advisory(said, self.owner.keys[-1]).line,), ())
        self.warned.add(text)
        self.notices += 1

    def said(self, kind: str, artifact: Digest, text: str) -> bytes:
        """A statement about an artifact: a yank of its publisher, or what a stranger says."""
        if kind == "yank":
            self.warned.add(text)
            return sign_advisory(Advisory(self.owner.author, artifact, kind, "high", text), self.owner.keys[-1]).line
        author, key = STRANGER.inception.author, STRANGER.signer
        if kind == "warn":
            return sign_advisory(Advisory(author, artifact, "malware", "high", text), key).line
        if kind == "vouch":
            return sign_vouched(Vouched(author, artifact, "rehashed", text), key).line
        return derived_line(artifact, sha256(text.encode()), by=STRANGER)

    async def approve(self, artifact: Digest, *, end: bool) -> None:
        now = int(time.time())
        if not end:
            approved = Approved(OFFICER.id, artifact, SCOPE, now - DAY, now + DAY, now)
            self.approvals.append(sign_approved(approved, OFFICER.signer))
            await self.node.submit((OFFICER.entry.line, self.approvals[-1].line), ())
        elif self.approvals:
            entry = self.draw.choice(self.approvals)
            ended = ApprovalEnded(OFFICER.id, entry.statement.subject, entry.statement_digest, now - DAY, "")
            await self.node.submit((sign_approval_ended(ended, OFFICER.signer).line,), ())


async def logged_history(scene: Scene, seed: int, sources: Path) -> History:
    async with scene.home.client() as node:
        draw, owner = random.Random(seed), scene.owners[seed]
        history = History(scene, node, owner, draw, sources, f"lab-{seed}/tiny")
        await history.begin()
        for number in range(STEPS):
            await history.step(number)
        return history


@dataclass(frozen=True)
class Answer:
    """What one way to an artifact says: refused with these words, or accepted (None); its rows, if it shows any."""

    refusal: str | None
    rows: tuple[tuple[str, str], ...] = ()


def rows_of(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    return tuple((row.state, _plain(row.summary)) for row in verdict.rows if row.name not in (*OF_FILES, "replicas"))


def _plain(text: str) -> str:
    """Without the time of the judgement: a gateway judges approvals at its own time."""
    return re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", "TIME", " ".join(text.split()))


def by_pull(scene: Scene, name: str, to: Path) -> tuple[Answer, Verdict]:
    judged: list[PolicyJudged] = []

    def note(event: Event) -> None:
        if isinstance(event, PolicyJudged):
            judged.append(event)

    refusal = None
    try:
        scene.client.pull(name, to=to, policy=read_policy(scene.policy)[0], on_event=note)
    except ComityError as error:
        refusal = error.why
        if not judged:
            raise
    return Answer(refusal and _plain(refusal), rows_of(judged[-1].verdict)), judged[-1].verdict


_CHECKS = re.compile(r'<table class="checks">.*?</table>', re.S)
_ROW = re.compile(
    r'<th scope="row">[^<]*</th><td><span class="basis (\w+)">.*?</td>\s*<td><span lang="en">(.*?)</span>', re.S
)
_STATES = {"here": "pass", "bad": "fail", "unknown": ""}
"""By the class of a mark in the console; one mark stands for unknown and for not-checked."""


def _console_rows(page: str, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    shown = _ROW.findall(_CHECKS.search(page)[0])  # type: ignore[index]
    names = [row.name for row in verdict.rows if row.name != "replicas"]
    return tuple(
        (_STATES[state], _plain(unescape(text)))
        for name, (state, text) in zip(names, shown, strict=True)
        if name not in OF_FILES
    )


async def by_gateway(scene: Scene, name: str, verdict: Verdict) -> dict[str, Answer]:
    repository, _, version = name.partition("@")
    answers: dict[str, Answer] = {}
    async with httpx2.AsyncClient(base_url=scene.url, timeout=PATIENCE) as http:
        for door, path in (
            ("Hub API", f"/api/models/{repository}/revision/{version}"),
            ("a file", f"/{repository}/resolve/{version}/config.json"),
            ("OCI", f"/v2/{repository}/manifests/{version}"),
        ):
            answer = await http.get(path)
            answers[door] = Answer(_plain(answer.text) if answer.status_code == 403 else None)
        page = await http.get(f"/{repository}/tree/{version}", headers={"Accept": "text/html"})
    if page.status_code == 200:
        answers["console"] = Answer(None, _console_rows(page.text, verdict))
    else:
        answers["console"] = Answer(_plain(unescape(page.text)))
    return answers


def differences(pull: Answer, others: dict[str, Answer]) -> Iterator[str]:
    for door, answer in others.items():
        if (answer.refusal is None) != (pull.refusal is None):
            yield f"{door}: {answer.refusal} against {pull.refusal}"
        elif pull.refusal is not None and pull.refusal not in (answer.refusal or ""):
            yield f"{door}: other words: {answer.refusal} against {pull.refusal}"
        for (state, text), row in zip(answer.rows, pull.rows, strict=False):
            if text != row[1] or state not in ("", row[0]):
                yield f"{door}: {state} {text} against {row}"


async def agreed(scene: Scene, name: str, folder: Path) -> tuple[Answer, Verdict]:
    """Wait until all ways to an artifact agree: what was logged last reaches answers that are kept within seconds."""
    found: list[str] = []
    last: list[tuple[Answer, Verdict]] = []

    async def compared() -> bool:
        pull, verdict = await asyncio.to_thread(by_pull, scene, name, folder)
        last[:] = [(pull, verdict)]
        found[:] = differences(pull, await by_gateway(scene, name, verdict))
        return not found

    try:
        await until(compared, patience=SETTLED)
    except AssertionError as error:
        raise AssertionError("\n".join(found)) from error
    return last[0]


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_way_to_an_artifact_gives_the_same_answer(scene: Scene, seed: int, tmp_path: Path) -> None:
    history = await logged_history(scene, seed, tmp_path / "sources")
    accepted = set[str]()
    for version in history.versions:
        name = f"{history.repository}@{version}"
        pull, verdict = await agreed(scene, name, tmp_path / version)
        shown = await asyncio.to_thread(scene.client.show, name)
        warned = {fact.text.partition(": ")[2] for fact in verdict.row("disputes and advisories").facts}
        assert {each.text for each in shown.advisories} | {each.text for each in shown.lost_keys} <= warned
        if pull.refusal is None:
            accepted.add(name)
            policy = read_policy(scene.policy)[0]
            again = await asyncio.to_thread(scene.client.verify, tmp_path / version, policy=policy)
            assert [row.to_json() for row in again.rows] == [row.to_json() for row in verdict.rows]
    publisher = f"{scene.owners[seed].label} [{scene.owners[seed].id[:12]}]"
    told = f"{publisher} says that a key of its was stolen"
    async with httpx2.AsyncClient(base_url=scene.url, timeout=PATIENCE) as http:

        async def alerted() -> bool:
            alerts = await http.get("/-/alerts", headers={"Accept": "text/html"})
            return (told in alerts.text) == bool(history.notices)

        await until(alerted, patience=SETTLED, what="the alert of the stolen key")

    def receiver_told() -> bool:
        told = scene.told()
        named = {each["name"] for each in told if each["event"] == "version"}
        warned = {each["text"] for each in told if each["event"] == "advisory"}
        stolen = any(each["event"] == "alert" and each["text"].startswith(publisher) for each in told)
        return accepted <= named and history.warned <= warned and stolen == bool(history.notices)

    await until(receiver_told, patience=SETTLED, what="the events of the webhook")
