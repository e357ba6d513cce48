"""One answer everywhere: for the same ledger, pins and policy, each way to an artifact gives the same rows, the same
decision and the same words.

Histories are generated: publications of several versions and of the same bytes, lineage within a repository and from
another publisher, rotations, disputed ones, lost keys (of both publishers), yanks, warnings of strangers, vouches,
derivations, approvals and their ends; copies that three members claim, alone and together, test, withdraw for each
reason, claim again and damage. Each of the three nodes has another policy, and a client asks with each of them.

| compared | at |
|---|---|
| accepted or refused, and why (each version, and the bare name) | pull, verify, report, Hub API, a file, OCI, console |
| the rows of the verdict: states and summaries | pull, verify (every fact), report, console |
| which version a bare name means | pull, Hub API |
| warnings, and keys that publishers of it and of its base lost | verdict, show (`advisory ls`), feed, webhook, alerts |
| who claims a copy, who withdrew one and why | the row *replicas*, whereis, consoles, each node's list of copies |
| results of audits, and whose they are | whereis, consoles, each node's list of copies (`audit ls`) |
| files of a copy that the node withdrew, also shared ones | Hub, OCI |

Not compared: the rows *bytes* and *file safety*, because a pull has the files; of an audit, the day and the number of
pieces.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from comity.gateway.app import serve_gateway
from comity.node.maintenance.home_files import add_webhook
from comity.trust.encoding import Digest, format_time
from comity.trust.evidence import Verdict
from comity.trust.policy import Policy
from comity.trust.report import VerdictReport
from comity.verifier import read_policy
from comity_client.client import Client
from comity_client.home import Home
from support.answers import (
    PAGE,
    WITHDRAWN,
    Answer,
    GatewayAnswers,
    audits_of,
    by_copies,
    by_gateway,
    by_pull,
    by_verdict,
    by_whereis,
    claims_of,
    differences,
    rows_of,
    together,
)
from support.federation import NodeHome, found, serving, until
from support.histories import OFFICER, SCOPE, SHARED, STRANGER, History, Owner, logged_history
from support.waiting import PATIENCE
from support.webhook_receiver import Receiver, receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEDS = range(2)
STEPS = 12
SIGNED = ["artifact", "signatures", "transparency"]
POLICIES = (
    f"[rows]\nrequire = {json.dumps([*SIGNED, 'key policy'])}\n",
    f'[advisories]\nrefuse_from = ["{STRANGER.id}"]\n[rows]\nrequire = {json.dumps([*SIGNED, "replicas"])}\n',
    f"""[approvals]
scope = "{SCOPE}"
at_least = 1
[approvals.officers]
Anna = "{OFFICER.id}"
[lineage]
parents_by_digest = true
[licences]
accept = ["mit"]
[rows]
require = {json.dumps([*SIGNED, "licence", "lineage"])}
""",
)
RELAXED = 'lost_keys = "report"\n'
"""Of the last policy."""


@dataclass(frozen=True)
class Site:
    """A node with a policy, and what it tells others."""

    home: NodeHome
    policy: Policy
    url: str
    receiver: Receiver
    member: str

    def told(self) -> list[dict[str, str]]:
        """What the webhook of the node received: the data of each event, with its kind."""
        events = [json.loads(body) for _, body in list(self.receiver.got)]
        return [{**event["data"], "event": event["type"].split(".")[-2]} for event in events]


@dataclass(frozen=True)
class Scene:
    """Nodes of one federation, a client that asks them all, and two publishers for each history."""

    sites: tuple[Site, ...]
    client: Client
    owners: tuple[Owner, ...]
    bases: tuple[Owner, ...]

    @property
    def homes(self) -> tuple[NodeHome, ...]:
        return tuple(site.home for site in self.sites)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("one")
    founded = found(folder / "nodes", len(POLICIES))
    owners, bases = (tuple(Owner(f"{what} {seed}") for seed in SEEDS) for what in ("Lab", "Base lab"))
    for owner in (*owners, *bases):
        owner.begin(founded.homes[0].origin)
    client = Client(Home(folder / "home"))
    await asyncio.to_thread(client.pin, founded.federation.encode())
    async with AsyncExitStack() as stack:
        receivers = [stack.enter_context(receiving(204)) for _ in POLICIES]
        for number, (home, receiver) in enumerate(zip(founded.homes, receivers, strict=True)):
            relaxed = RELAXED if POLICIES[number] == POLICIES[-1] else ""
            (home.directory / "policy.toml").write_text(
                f'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n[publishers]\n{relaxed}'
                f"accept = {json.dumps([owner.id for owner in owners])}\n[cosigners]\nat_least = 0\n"
                f"[time]\nas_of = {format_time(int(time.time()))}\n{POLICIES[number]}"
            )
            home.set("gateway", policy="policy.toml")
            home.set("webhooks", file="webhooks.toml")
            home.set("audits", bytes_per_day=0)
            home.set("replication", interval_seconds=0.3, first_answer_seconds=1.0, hold_batch=1 + 31 * (number % 2))
            add_webhook(home.directory / "node.toml", "ops", receiver.url, ("version", "advisory", "alert"), {})
        nodes = await stack.enter_async_context(serving(*founded.homes, companion=serve_gateway))
        sites = tuple(
            Site(
                home,
                read_policy(home.directory / "policy.toml")[0],
                listening.http,
                receiver,
                home.card.inception.label,
            )
            for home, listening, receiver in zip(founded.homes, nodes, receivers, strict=True)
        )
        yield Scene(sites, client, owners, bases)


@dataclass(frozen=True)
class Compared:
    """What a pull says under the policy of a site, and what the gateway there does."""

    site: Site
    pull: Answer
    verdict: Verdict | None
    gateway: GatewayAnswers


@dataclass(frozen=True)
class Asked:
    """Asks every way to the artifacts of one history, until what was logged last has reached all answers."""

    scene: Scene
    history: History
    folder: Path

    async def agreed(self, name: str) -> list[Compared]:
        """What all ways to one artifact say. Fails with the differences."""
        found: list[str] = []
        last: list[Compared] = []

        async def compared() -> bool:
            last[:] = [await self._ask(site, name) for site in self.scene.sites]
            found[:] = [
                f"{each.site.home.name}: {text}"
                for each in last
                for text in (*differences(each.pull, each.gateway.doors), *self._wrongly_served(name, each))
            ]
            if "@" in name:
                found.extend(await self._copies(name, last))
            return not found

        try:
            await until(compared)
        except AssertionError as error:
            raise AssertionError("\n".join([name, *found])) from error
        return last

    async def _ask(self, site: Site, name: str) -> Compared:
        to = self.folder / site.home.name / name.partition("@")[2]
        pull, verdict = await asyncio.to_thread(by_pull, self.scene.client, site.policy, name, to)
        return Compared(site, pull, verdict, await by_gateway(site.url, site.member, name, verdict))

    def _withdrew(self, artifact: Digest, site: Site) -> bool:
        return site.home.name in self.history.withdrew.get(artifact, ())

    def _wrongly_served(self, name: str, said: Compared) -> Iterator[str]:
        """Files of a copy that the node withdrew, and files that it does not give. A file in a registry has no version:
        it is that of a version whose copy the node has, if one names it."""
        artifact, site = said.verdict.artifact if said.verdict else None, said.site
        keeps_others = any(not self._withdrew(each, site) for each in self.history.artifacts)
        for what, words in said.gateway.served.items():
            withdrew = artifact is not None and self._withdrew(artifact, site)
            may_be_another = what == f"OCI {SHARED}" and keeps_others
            if withdrew and WITHDRAWN not in words and not may_be_another:
                yield f"{what}: {words or 'served'} from a withdrawn copy"
            if not withdrew and words:
                yield f"{what}: {words}"

    async def _copies(self, name: str, said: list[Compared]) -> list[str]:
        """What tells of the copies of an artifact, and does not say what the nodes did."""
        client, artifact = self.scene.client, self.history.versions[name.partition("@")[2]]
        by_node = [await asyncio.to_thread(by_copies, client, each.site.home.name, artifact) for each in said]
        whereis, listed, found = await asyncio.to_thread(by_whereis, client, name), together(by_node), list[str]()
        gone = {each.site.member for each in said if self._withdrew(artifact, each.site)}
        claims = claims_of(listed)
        if {member for member, claim in claims.items() if claim.startswith("withdrawn: ")} != gone:
            found.append(f"copies: {claims}, but {sorted(gone)} withdrew theirs")
        if (claims_of(whereis), audits_of(whereis)) != (claims, audits_of(listed)):
            found.append(f"whereis: {whereis} against {listed}")
        for each, copies in zip(said, by_node, strict=True):
            if claims_of(copies) != claims:
                found.append(f"copies at {each.site.home.name}: {copies} against {listed}")
            if each.verdict is not None and by_verdict(each.verdict) != claims:
                found.append(f"the row replicas: {by_verdict(each.verdict)} against {claims}")
            if each.gateway.copies not in (None, copies):
                found.append(f"console of {each.site.home.name}: {each.gateway.copies} against {copies}")
        return found


async def shown(said: Compared, client: Client, name: str) -> None:
    """What `show`, a report and the offline check say of an artifact, against the verdict."""
    verdict = said.verdict
    assert verdict is not None
    info = await asyncio.to_thread(client.show, name)
    warned = {fact.text.partition(": ")[2] for fact in verdict.row("disputes and advisories").facts}
    assert info.artifact == verdict.artifact
    assert {each.text for each in info.advisories} | {each.text for each in info.lost_keys} <= warned
    report = VerdictReport.parse(VerdictReport.of(verdict, "1").encode()).verdict
    assert (rows_of(report), report.exit_status) == (said.pull.rows, verdict.exit_status)


def publisher_of(owner: Owner) -> str:
    return f"{owner.label} [{owner.id[:12]}]"


async def told(site: Site, history: History, accepted: set[str]) -> None:
    """Wait until the alerts, the feed and the webhook of a node say what happened."""
    lost = {publisher_of(each): each.id in history.lost for each in (history.owner, history.base)}
    async with httpx2.AsyncClient(base_url=site.url, timeout=PATIENCE) as http:

        async def alerted() -> bool:
            page = unescape((await http.get("/-/alerts", headers=PAGE)).text)
            return all((f"{who} says that a key of its was stolen" in page) == said for who, said in lost.items())

        async def listed() -> bool:
            feed = unescape((await http.get("/-/feeds/advisories.atom")).text)
            return all(f": {text} " in feed for text in history.warned)

        await until(alerted, what=f"the alert of the stolen key at {site.home.name}")
        await until(listed, what=f"the feed of {site.home.name}")

    def received() -> bool:
        events = site.told()
        named = {each["name"] for each in events if each["event"] == "version"}
        warned = {each["text"] for each in events if each["event"] == "advisory"}
        alerts = [each["text"] for each in events if each["event"] == "alert"]
        stolen = {who: any(text.startswith(who) for text in alerts) for who in lost}
        return accepted <= named and history.warned <= warned and stolen == lost

    await until(received, what=f"the events of the webhook of {site.home.name}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_way_to_an_artifact_gives_the_same_answer(scene: Scene, seed: int, tmp_path: Path) -> None:
    history = await logged_history(
        scene.homes, scene.owners[seed], scene.bases[seed], seed, tmp_path / "sources", STEPS
    )
    asked, commits = Asked(scene, history, tmp_path), dict[tuple[str, Digest], str]()
    accepted: dict[str, set[str]] = {site.home.name: set() for site in scene.sites}
    for version in history.versions:
        name = f"{history.repository}@{version}"
        for said in await asked.agreed(name):
            assert said.verdict is not None
            commits[said.site.home.name, history.versions[version]] = said.gateway.commit
            await shown(said, scene.client, name)
            if said.pull.refusal is None:
                accepted[said.site.home.name].add(name)
                folder = tmp_path / said.site.home.name / version
                again = await asyncio.to_thread(scene.client.verify, folder, policy=said.site.policy)
                assert [row.to_json() for row in again.rows] == [row.to_json() for row in said.verdict.rows]
    for said in await asked.agreed(history.repository):
        if said.pull.refusal is None and said.verdict is not None and said.verdict.artifact is not None:
            assert said.gateway.commit == commits[said.site.home.name, said.verdict.artifact]
    for site in scene.sites:
        await told(site, history, accepted[site.home.name])
