"""The honest script, and its outcome: the same with every attacker.

Before an attack the members and publishers have done everything once (`prepared`): published, mirrored, drafted,
requested compute. The script continues from there (`Script`): they publish, mirror, cosign, resolve, pull, verify,
vote, accept a grant and browse. The results are in `Outcome.facts`, by question: plain values that are equal in two
runs unless an attacker changed a result.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from attackers import Known
from attackers.strangers import ACCEPTED
from comity.rules.copy_counts import PASSED, AssessedCopy
from comity.rules.offers.offer import Window
from comity.transfer.limits import TransferLimits
from comity.trust.artifact import Manifest
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.tlog.note import Checkpoint
from comity.wire.client import NodeClient
from comity.wire.node_status import MemberCopies
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from comity_client.user import mirrored_policy
from interference.federation import Hostile, Members, Report, copied, founded, running
from support.federation import NodeHome, cosigners, note_of
from support.governing import Person, changed
from support.hub_like import HubLike
from support.offer_commands import Borrower, Lender, state_of
from support.offers import hours
from support.publisher import model
from support.waiting import PATIENCE, eventually, pause_after
from support.weights import as_tensor

T = TypeVar("T")
BOUND, UNBOUND = "tests/model", "acme/tiny"
MIRRORED, SECOND = "org/tiny", "org/second"
FILES = {"README.md": b"---\nlicense: mit\n---\n# Tiny\n", "weights.bin": as_tensor(bytes(range(256)) * 2_000)}


@dataclass
class Prepared:
    """The state before any attack."""

    folder: Path
    members: Members
    hub: HubLike
    body: Body
    borrower: Borrower
    request: Entry
    known: Known
    artifacts: dict[str, str]


@dataclass
class Outcome:
    """The results of the script. `seconds` is the time of each step; `processes` the resources that its nodes used."""

    facts: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    copied: list[float] = field(default_factory=list)
    """Seconds until every honest node had a large artifact: one published before the attack began, one after."""
    shares: list[dict[str, MemberCopies]] = field(default_factory=list)
    """By honest node, the space of the hostile member's copies: before the attack, and when the script has ended."""


def client_at(folder: Path, name: str, federation: bytes) -> Client:
    client = Client(Home(folder / name), limits=TransferLimits(patience=PATIENCE))
    client.pin(federation)
    return client


def prepared(folder: Path, hub: HubLike) -> Prepared:
    """A federation in which every action has been done once."""
    homes = folder / "prepared"
    user = Client(Home(homes / "user"), limits=TransferLimits(patience=PATIENCE))
    bound = user.new_publisher("tests", "CH", "node-ch.example/log")
    unbound = user.new_publisher("acme", "ES", "node-es.example/log")
    accepted = (bound.id, unbound.id, *(who.id for who in ACCEPTED))
    members = founded(homes, {"tests": bound.id}, accepted)
    user.pin(members.federation)
    for name in (MIRRORED, SECOND):
        hub.repository(name).card = {"license": "mit"}
        hub.repository(name).commit({**FILES, "name.txt": name.encode()})
    first, second, _ = members.honest
    borrower = Borrower()
    with running(*members.honest) as nodes, _present(members):
        for publisher, repository, home in ((bound, BOUND, first), (unbound, UNBOUND, second)):
            source = model(homes / "sources" / repository, weights=300_000, seed=len(repository))
            user.publish(source, f"{repository}@v1", publisher=publisher, licence="MIT", nodes=[home.name])
        for home in (first, second):
            mirror(user, hub, home, MIRRORED)
        body, request = asyncio.run(_begun(members, borrower))
        artifacts = {name: str(user.resolve(name).artifact) for name in (f"{BOUND}@v1", f"{UNBOUND}@v1")}
        artifacts[MIRRORED] = str(user.resolve(f"hf:{MIRRORED}").artifact)
        spread(members.honest, list(artifacts.values()))
        known = _known(members, (bound, unbound), artifacts, hub, body, request)
        assert all(node.alive for node in nodes)
    return Prepared(homes, members, hub, body, borrower, request, known, artifacts)


@contextmanager
def _present(members: Members) -> Iterator[Hostile]:
    hostile = Hostile(members)
    try:
        yield hostile
    finally:
        hostile.close()


async def _begun(members: Members, borrower: Borrower) -> tuple[Body, Entry]:
    """A draft is proposed at the first node, and compute is requested at the second."""
    people = [Person(home) for home in members.honest]
    async with people[0].home.operator() as own:
        body = changed(Body.parse((await own.charter()).body), 3)
    await people[0].say(people[0].drafting(body), bodies=[body])
    lender = Lender(members.honest[1])
    now = int(time.time()) // 3600 * 3600
    offer = await lender.post(window=Window(now, now + 240 * 3600))
    wanted = replace(hours(0, 10), start=now, end=now + 10 * 3600)
    request = borrower.request(offer, wanted)
    await borrower.submit(members.honest[1], request)
    return body, request


def mirror(client: Client, hub: HubLike, home: NodeHome, name: str) -> Any:
    hosts = [hub.cdn.removeprefix("http://")]
    return client.import_upstream(f"hf:{name}", str(home.socket), endpoint=hub.url, hosts=hosts)


def _known(
    members: Members,
    publishers: Sequence[Publisher],
    artifacts: dict[str, str],
    hub: HubLike,
    body: Body,
    request: Entry,
) -> Known:
    draft, *_ = within(lambda: _lines_about(members.honest[0], body.digest), bool)
    return Known(
        bound=f"{BOUND}@v1",
        unbound=f"{UNBOUND}@v1",
        mirrored=MIRRORED,
        commit=hub.repository(MIRRORED).commits[-1].sha,
        endpoint=hub.url,
        artifacts=tuple(artifacts.values()),
        files=(str(sha256(FILES["weights.bin"])),),
        members=tuple((str(home.card.inception.id), home.card.inception_line) for home in members.honest),
        federation=str(body.federation),
        prev=str(body.prev),
        body=body.data,
        drafts=(draft,),
        requests=(request.line,),
        publishers=tuple((str(each.id), each.line) for each in publishers),
    )


async def _lines_about(home: NodeHome, subject: Digest) -> list[bytes]:
    async with home.client() as client:
        entries = await client.next_epoch_entries()
        return [found.line for found in entries if subject.encode() in _payload(found.line)]


def _payload(line: bytes) -> bytes:
    return base64.b64decode(json.loads(line)["payload"])


def within(condition: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], patience: float = PATIENCE) -> T:
    """The value of `condition` once it equals `wanted`, or when `patience` has passed."""

    async def wait() -> T:
        deadline = time.monotonic() + patience
        while True:
            asked = time.monotonic()
            try:
                found = await condition()
                if wanted(found) or time.monotonic() > deadline:
                    return found
            except ComityError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause_after(asked, least=0.05))

    return asyncio.run(wait())


def spread(homes: Sequence[NodeHome], artifacts: Sequence[str], patience: float = PATIENCE) -> dict[str, list[str]]:
    """Which of the artifacts each node holds, once all hold all."""

    async def look() -> dict[str, list[str]]:
        found = {}
        for home in homes:
            async with home.client() as client:
                found[home.name] = [each for each in artifacts if await _holds(client, Digest(each))]
        return found

    return within(look, lambda held: all(len(each) == len(artifacts) for each in held.values()), patience)


async def _holds(client: NodeClient, artifact: Digest) -> bool:
    (here,) = await client.stat([artifact])
    if not here.have:
        return False
    files = Manifest.parse(await client.object(artifact)).files
    return all(stat.have for stat in await client.stat(list({file.sha256 for file in files if file.size})))


class Script:
    """The honest parties of one run. Each step writes its results into the outcome; none raises."""

    def __init__(self, prepared: Prepared, folder: Path, patience: float = PATIENCE) -> None:
        copied(prepared.folder, folder)
        self.prepared = prepared
        self.folder = folder
        self.patience = patience
        self.members = prepared.members.copied(prepared.folder, folder)
        self.user = Client(Home(folder / "user"), limits=TransferLimits(patience=patience))
        self.outcome = Outcome()
        self.artifacts = dict(prepared.artifacts)

    def run(self) -> None:
        self._step("publish", self.publish)
        self._step("mirror", self.mirror)
        self._step("copies", self.copies)
        self._step("counted", self.counted)
        self._step("cosigners", self.cosigners)
        self._step("resolve", self.resolve)
        self._step("pull", self.pull)
        self._step("vote", self.vote)
        self._step("grant", self.grant)
        self._step("browse", self.browse)
        self._step("audited", self.audited)

    def publish(self) -> object:
        """The second version of both names, each at its publisher's node."""
        logged = {}
        for label, repository, home in (("tests", BOUND, 0), ("acme", UNBOUND, 1)):
            source = model(self.folder / "new" / repository, weights=300_000, seed=50 + home)
            receipt = self.user.publish(
                source, f"{repository}@v2", publisher=self.user.publisher(label), licence="MIT",
                nodes=[self.members.honest[home].name],
            )  # fmt: skip
            self.artifacts[f"{repository}@v2"] = logged[repository] = str(receipt.artifact)
        return logged

    def mirror(self) -> object:
        done = mirror(self.user, self.prepared.hub, self.members.honest[2], SECOND)
        self.artifacts[SECOND] = str(done.observed.artifact)
        return str(done.observed.artifact)

    def copies(self) -> object:
        return spread(self.members.honest, sorted(set(self.artifacts.values())), self.patience)

    def counted(self) -> object:
        """The honest nodes whose copies count at each honest node, by artifact."""
        nodes = {home.record.node.id: home.name for home in self.members.honest}

        async def look() -> dict[str, list[str]]:
            found = {}
            for home in self.members.honest:
                async with home.client() as client:
                    for artifact in sorted(set(self.artifacts.values())):
                        listed = (await client.audits.copies(Digest(artifact))).artifacts
                        counted = {each.copy.node for item in listed for each in item.copies if each.counts}
                        found[f"{home.name} {artifact}"] = sorted(nodes[node] for node in counted & nodes.keys())
            return found

        return within(look, lambda found: all(len(each) == len(nodes) for each in found.values()), self.patience)

    def audited(self) -> object:
        """Audits that the hostile member's copies passed, though it has none, and faults that are proven of others."""

        async def look() -> list[str]:
            found = []
            for home in self.members.honest:
                async with home.client() as client:
                    for artifact in sorted(set(self.artifacts.values())):
                        listed = (await client.audits.copies(Digest(artifact))).artifacts
                        found += [
                            _false_result(home, each, self.members.hostile) for item in listed for each in item.copies
                        ]
            return [result for result in found if result]

        return asyncio.run(look())

    def cosigners(self) -> object:
        """Who cosigns the newest checkpoint of each honest log, as its own node shows it."""
        homes = self.members.honest

        async def look() -> dict[str, list[str]]:
            found = {}
            for home in homes:
                others = [other for other in homes if other is not home]
                async with home.client() as client:
                    note = await note_of(client, home.origin)
                found[home.name] = sorted(cosigners(home, note, others)) if note else []
            return found

        return within(look, lambda found: all(len(each) == len(homes) - 1 for each in found.values()), self.patience)

    def resolve(self) -> object:
        """By a user who resolved them before, and by a newcomer."""
        newcomer = client_at(self.folder, "newcomer", self.members.federation)
        asked = [(self.user, name) for name in (BOUND, f"{UNBOUND}@v1", f"hf:{MIRRORED}")]
        asked += [(newcomer, name) for name in (f"{BOUND}@v1", f"{UNBOUND}@v1", f"hf:{SECOND}")]
        return {f"{client.home.root.name} {name}": _or_code(partial(_resolved, client, name)) for client, name in asked}

    def pull(self) -> object:
        """A newcomer pulls an artifact of each kind, and verifies it."""
        puller = client_at(self.folder, "puller", self.members.federation)
        found = {}
        for number, name in enumerate((f"{BOUND}@v2", f"{UNBOUND}@v1", f"hf:{MIRRORED}")):
            found[name] = _or_code(partial(self._pulled, puller, name, number))
        return found

    def _pulled(self, puller: Client, name: str, number: int) -> object:
        folder = self.folder / f"pulled-{number}"
        pulled = eventually(lambda: puller.pull(name, to=folder))
        verdict = puller.verify(folder, policy=self._policy_of(puller, name))
        return {
            "artifact": str(pulled.artifact),
            "alarms": list(pulled.alarms),
            "exit": verdict.exit_status,
            "rows": {row.name: row.state for row in verdict.rows if row.name in JUDGED},
        }

    def _policy_of(self, puller: Client, name: str) -> Policy | None:
        """The puller's policy: what was mirrored has no signature of a publisher."""
        return mirrored_policy(puller.policy()) if name.startswith("hf:") else None

    def vote(self) -> object:
        """The honest members vote for the proposed draft; the epoch that each node holds."""
        people = [Person(home) for home in self.members.honest]
        body = self.prepared.body

        async def voted() -> dict[str, object]:
            for person in people:
                if await person.epoch() < body.epoch:
                    await person.vote(body)
            return {person.home.name: await _epoch(person) for person in people}

        certified = [body.epoch, str(body.digest)]
        return within(voted, lambda found: all(each == certified for each in found.values()), self.patience)

    def grant(self) -> object:
        """The request is granted, and the grant is accepted."""
        home, borrower, request = self.members.honest[1], self.prepared.borrower, self.prepared.request
        granted = asyncio.run(Lender(home).approve(request.digest))
        asyncio.run(borrower.submit(home, borrower.accept(granted)))

        async def state() -> str:
            return (await state_of(home, request)).state

        return within(state, lambda found: found == "accepted", self.patience)

    def browse(self) -> object:
        """The answers that an unmodified client gets at each gateway."""
        commit = self.prepared.known.commit
        paths = (
            f"/api/models/{BOUND}",
            f"/{BOUND}/resolve/v1/config.json",
            f"/{BOUND}/resolve/main/weights.bin",
            f"/{UNBOUND}/resolve/v1/config.json",
            f"/api/models/{MIRRORED}",
            f"/{MIRRORED}/resolve/main/README.md",
            f"/{MIRRORED}/resolve/{commit}/weights.bin",
        )
        found = {}
        for home in self.members.honest:
            with httpx2.Client(base_url=f"http://{home.config().gateway.http}", timeout=self.patience) as reader:
                deadline = time.monotonic() + self.patience
                for path in paths:
                    found[f"{home.name} {path}"] = self._read(reader, path, deadline)
        return found

    def _read(self, reader: httpx2.Client, path: str, deadline: float) -> object:
        """Status and body; a node may need a moment to judge a new artifact."""
        while True:
            try:
                answer = reader.get(path, follow_redirects=True)
                if answer.status_code == 200 or time.monotonic() > deadline:
                    return [answer.status_code, _essence(answer)]
            except httpx2.HTTPError as error:
                if time.monotonic() > deadline:
                    return type(error).__name__
            time.sleep(0.2)

    def measure(self, size: int) -> None:
        """Publish a further artifact of `size` bytes, and wait until every honest node has it."""
        turn = len(self.outcome.copied)
        label, repository = (("tests", BOUND), ("acme", UNBOUND))[turn]
        source = model(self.folder / "large" / repository, weights=size, seed=70 + turn)
        begin = time.monotonic()
        receipt = self.user.publish(
            source, f"{repository}@large", publisher=self.user.publisher(label), licence="MIT",
            nodes=[self.members.honest[turn].name],
        )  # fmt: skip
        artifact = str(receipt.artifact)
        held = spread(self.members.honest, [artifact], self.patience)
        self.outcome.copied.append(time.monotonic() - begin)
        assert all(each == [artifact] for each in held.values()), f"not copied by all: {held}"

    def look_at_shares(self) -> None:
        self.outcome.shares.append(asyncio.run(self._shares()))

    async def _shares(self) -> dict[str, MemberCopies]:
        hostile, found = str(self.members.hostile.card.inception.id), {}
        for home in self.members.honest:
            async with home.operator() as client:
                replication = (await client.status()).replication
            assert replication is not None
            (found[home.name],) = (copies for copies in replication.members if copies.member == hostile)
        return found

    def _step(self, name: str, step: Callable[[], object]) -> None:
        begin = time.monotonic()
        self.outcome.facts[name] = _or_code(step)
        self.outcome.seconds[name] = time.monotonic() - begin


MOST_KNOCKS = 10
"""Connections in a minute and node to machines that one member names, and that are not its own."""
JUDGED = ("artifact", "bytes", "signatures", "transparency", "cosigners")
"""The rows that no statement of others may change (I4)."""


def _or_code(work: Callable[[], object]) -> object:
    try:
        return work()
    except ComityError as error:
        return f"{error.code}: {error} {error.why}"[:300]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def _false_result(asked: NodeHome, copy: AssessedCopy, hostile: NodeHome) -> str:
    """A result about a copy that no auditor could honestly come to; empty if there is none."""
    of_hostile = copy.copy.node == hostile.record.node.id
    false = [each.outcome for each in copy.results if (each.outcome == PASSED if of_hostile else each.proven)]
    return f"{asked.name}: {copy.copy.node}: {false}" if false else ""


def _resolved(client: Client, name: str) -> object:
    return str(eventually(lambda: client.resolve(name)).artifact)


async def _epoch(person: Person) -> object:
    async with person.home.client() as client:
        charter = await client.charter()
        return [charter.epoch, str(sha256(charter.body))]


def _essence(answer: httpx2.Response) -> object:
    """The part of an answer that is the same in two runs."""
    if answer.status_code != 200:
        return answer.headers.get("X-Error-Code", "")
    if answer.headers.get("content-type", "").startswith("application/json") and "/api/" in str(answer.url):
        said = answer.json()
        return [said["id"], said["sha"], sorted(file["rfilename"] for file in said["siblings"])]
    return hashlib.sha256(answer.content).hexdigest()


def play(
    prepared: Prepared,
    folder: Path,
    attackers: Sequence[str] = (),
    patience: float = PATIENCE,
    size: int = 0,
) -> Outcome:
    """Run the script on a copy of the prepared federation, with these attackers from its beginning to its end.

    Args:
        size: of a large artifact, in bytes, whose copying is measured before the attack and beside it; 0 for none.
    """
    script = Script(prepared, folder, patience)
    with running(*script.members.honest) as nodes, _present(script.members) as hostile:
        if size:
            script.measure(size)
            script.look_at_shares()
        hostile.attack(attackers, prepared.known)
        mirrored = come_by(hostile, script.members, 8.0 if attackers else patience)
        if size:
            script.measure(size)
        script.run()
        if size:
            script.look_at_shares()
        outcome = script.outcome
        outcome.facts["alive"] = {node.home.name: node.alive for node in nodes}
        for node in nodes:
            if node.alive:
                outcome.memory |= {f"{node.home.name} {key}": value for key, value in node.memory().items()}
                outcome.cpu[node.home.name] = node.cpu()
            outcome.disk[node.home.name] = node.disk()
        outcome.report = replace(hostile.end(), mirrored=mirrored)
        outcome.facts["few connections to others"] = outcome.report.knocks <= MOST_KNOCKS * len(nodes)
        assert not outcome.report.failed, outcome.report.failed
    return outcome


def come_by(hostile: Hostile, members: Members, patience: float) -> tuple[int, ...]:
    """Let every honest node finish two more rounds with the hostile node, and mirror its log as far as it does, until
    it has not grown for `patience` seconds. Returns the size of each mirror, and of the log.
    """
    begin, (_, size) = hostile.rounds()[0], hostile.rounds()
    enough, taken = begin + 2 * len(members.honest), asyncio.run(_taken(members))
    deadline = time.monotonic() + patience
    while (hostile.rounds()[0] < enough or min(taken) < size) and time.monotonic() < deadline:
        time.sleep(0.1)
        before, taken = taken, asyncio.run(_taken(members))
        if taken != before:
            deadline = time.monotonic() + patience
    return (*taken, size)


async def _taken(members: Members) -> list[int]:
    """How much of the hostile log each honest node has."""
    found = []
    for home in members.honest:
        size = 0
        with contextlib.suppress(ComityError):
            async with home.operator() as client:
                note = await note_of(client, members.hostile.origin)
                size = Checkpoint.parse(note.text).size if note else 0
        found.append(size)
    return found
