"""Continuations at the gateway: which requests they answer, under which name, and what is said of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.addons.oci.images import ImageRegistry
from comity.addons.oci.registry import Registry
from comity.addons.oci.routes import ImageRoutes, OciRoutes
from comity.addons.wheel_index.routes import WheelRoutes
from comity.content.blobs import FolderStore
from comity.content.inspections import INSPECTIONS_FILE, KeptInspections
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.hub.catalogue import Catalogue
from comity.gateway.hub.continuations import Continuations
from comity.gateway.hub.judge import PolicyJudge
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.routes import HubRoutes
from comity.gateway.hub.views import ServedContinuation, Snapshot
from comity.ledger.ledger import Ledger
from comity.node.members import Membership, OwnNode
from comity.node.metrics import Metrics
from comity.node.policy_file import PolicyFile
from comity.node.settings import Gateway as Settings
from comity.node.threads import AsyncLedger, Pools
from comity.rules.continuation import ContinuedCommit, Continues, FollowRule
from comity.rules.model_pack import IMAGE_MANIFEST
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, Refused
from comity.trust.statement_kinds import CONTINUES, KNOWN_PREDICATES
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise
from starlette.requests import Request
from starlette.responses import Response
from support.case import nodes, release
from support.gateway import looking_at_each_request
from support.logs import LogKeys
from support.observations import COMMIT, NAME, observation
from support.world import NOW, Identity, found, identity

CH, SG, ES, KR = PEERS = nodes(4)
HOME = LogKeys(CH.origin, CH.log)
PUBLISHER, STRANGER = (identity(name, "CH", algs=("ed25519",)) for name in ("Publisher", "Stranger"))
NO_REPOSITORY = NotFound("this node serves no org/tiny", code="NO-SUCH-REPOSITORY")
NO_REVISION = NotFound("org/tiny has no such revision", code="NO-SUCH-REVISION")
NOT_ALLOWED = NotFound("this node serves no org/tiny", code="UPSTREAM-NOT-ALLOWED")
OLDER = "2e" * 20


class Gateway:
    """A ledger of four members, a store, and the continuations that two of them must name."""

    def __init__(self, folder: Path) -> None:
        membership = Membership(OwnNode.parse(CH.seat.entry.line, CH.entry.line), found(PEERS))
        self.store, self.pools = FolderStore(folder / "blobs"), Pools()
        self.ledger = Ledger.open(folder, lambda: NOW)
        self.ledger.logs.create(HOME.origin, HOME.vkey, own=True)
        ledger, judge = AsyncLedger(self.ledger), PolicyJudge(PolicyFile(None), membership, lambda: float(NOW))
        self._kept = KeptInspections(folder / INSPECTIONS_FILE)
        self.catalogue = Catalogue(ledger, self.store, self.pools, membership, judge, Metrics(), self._kept)
        self.made = Continuations(ledger, membership, self.catalogue, FollowRule(2))
        self.off = Continuations(ledger, membership, self.catalogue, FollowRule())
        self.say(*(line for each in PEERS for line in (each.seat.entry.line, each.entry.line)))
        self.say(PUBLISHER.entry.line, STRANGER.entry.line)

    def say(self, *lines: bytes) -> None:
        self.ledger.logs.append(HOME.vkey, lines)

    def publish(
        self,
        name: str = "inst/kept@v1",
        by: Identity = PUBLISHER,
        content: bytes = b"weights",
        file: str = "model.gguf",
    ) -> Digest:
        published, entry, manifest, _ = release({file: content}, by=by, name=name)
        self.store.put(sha256(manifest), manifest)
        self.say(entry.line)
        return published.artifact

    def state(self, artifact: Digest, *by: Identity, of: str = NAME) -> None:
        self.say(*(sign_content(Continues(each.inception.author, artifact, of, 0), each.signer).line for each in by))

    async def asked(
        self, revision: str = "main", missing: NotFound = NO_REPOSITORY, name: str = "org/tiny"
    ) -> Snapshot:
        return await self.made.snapshot(name, revision, missing)

    async def asked_header(self) -> str:
        continues = (await self.asked()).continues
        assert continues is not None
        return continues.header

    async def refusal(self, revision: str = "main", missing: NotFound = NO_REPOSITORY) -> ComityError:
        with pytest.raises(ComityError) as raised:
            await self.asked(revision, missing)
        return raised.value

    async def close(self) -> None:
        await self.catalogue.close()
        self.pools.close()
        self.ledger.close()
        self._kept.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(tmp_path)
    with looking_at_each_request():
        yield made
    await made.close()


async def test_what_two_members_name_is_served_under_the_asked_name_and_commit(gateway: Gateway) -> None:
    artifact = gateway.publish()
    gateway.state(artifact, CH.seat)
    assert await gateway.refusal() is NO_REPOSITORY
    gateway.state(artifact, SG.seat)
    for revision, missing in (("main", NO_REPOSITORY), (COMMIT, NO_REPOSITORY), (COMMIT, NO_REVISION)):
        snapshot = await gateway.asked(revision, missing)
        assert (snapshot.repository, snapshot.commit, snapshot.artifact) == ("org/tiny", COMMIT, artifact)
        header = f"{NAME}; artifact=sha256:{artifact}; members=2"
        assert snapshot.continues == ServedContinuation(header, "inst/kept")
    topic, text = snapshot.notices[0]
    assert topic == "continues" and "inst/kept@v1, which 2 members say" in text
    assert (await gateway.asked("main", NOT_ALLOWED, "Org/TINY")).repository == "org/tiny"
    with pytest.raises(NotFound):
        await gateway.off.snapshot("org/tiny", "main", NO_REPOSITORY)


async def test_the_branch_of_a_publisher_and_other_versions_are_not_continued(gateway: Gateway) -> None:
    gateway.state(gateway.publish(), CH.seat, SG.seat)
    assert await gateway.refusal("main", NO_REVISION) is NO_REVISION
    assert await gateway.refusal("v1") is NO_REPOSITORY
    assert await gateway.refusal(OLDER) is NO_REPOSITORY
    other_kind = NotFound("it is a dataset", code="OTHER-KIND")
    assert await gateway.refusal(COMMIT, other_kind) is other_kind


async def test_what_one_member_and_strangers_say_neither_diverts_nor_blocks(gateway: Gateway) -> None:
    artifact, other = gateway.publish(), gateway.publish("other/kept@v1", STRANGER, b"other")
    gateway.state(other, ES.seat, STRANGER, PUBLISHER)
    gateway.say(observation(ES, other).line)
    assert await gateway.refusal() is NO_REPOSITORY
    gateway.state(artifact, CH.seat, SG.seat)
    snapshot = await gateway.asked()
    assert snapshot.artifact == artifact
    assert f"others name other bytes, by number of members: sha256:{other[:6]}" in snapshot.notices[0][1]


async def test_two_corroborated_artifacts_are_said_and_none_is_served(gateway: Gateway) -> None:
    artifact, other = gateway.publish(), gateway.publish("other/kept@v1", content=b"other")
    gateway.state(artifact, CH.seat, SG.seat)
    gateway.state(other, ES.seat, KR.seat)
    refused = await gateway.refusal()
    assert refused.code == "CONTINUES-DISPUTED" and artifact in refused.why and other in refused.why


async def test_of_several_continued_commits_a_reader_names_one(gateway: Gateway) -> None:
    newer, older = gateway.publish(), gateway.publish("inst/kept@v0", content=b"older")
    gateway.state(newer, CH.seat, SG.seat)
    gateway.state(older, CH.seat, SG.seat, of=f"hf:org/tiny@{OLDER}")
    refused = await gateway.refusal()
    assert refused.code == "CONTINUES-SEVERAL" and COMMIT in refused.why and OLDER in refused.why
    assert (await gateway.asked(OLDER)).artifact == older
    assert (await gateway.asked(COMMIT)).artifact == newer


async def test_what_a_node_fetched_from_the_upstream_corroborates(gateway: Gateway) -> None:
    artifact = gateway.publish()
    gateway.state(artifact, CH.seat)
    gateway.say(observation(ES, artifact).line)
    assert (await gateway.asked()).artifact == artifact


async def test_an_artifact_without_a_name_here_is_not_served(gateway: Gateway) -> None:
    gateway.state(sha256(b"unknown"), CH.seat, SG.seat)
    assert await gateway.refusal() is NO_REPOSITORY


@pytest.mark.parametrize("stored", [True, False])
async def test_a_folder_that_one_member_claims_to_be_the_repository_does_not_stand_in_the_way(
    gateway: Gateway, stored: bool
) -> None:
    artifact = gateway.publish()
    _, _, manifest, _ = release({"model.gguf": b"claimed"})
    if stored:
        gateway.store.put(sha256(manifest), manifest)
    claimed = observation(ES, sha256(manifest), how="carried", size=len(manifest))
    gateway.say(claimed.line)
    routes = ReadThroughRoutes(gateway.pools, None, gateway.catalogue, gateway.made)
    with pytest.raises(ComityError) as refused:
        await routes.snapshot("org/tiny", COMMIT, _anybody)
    assert (refused.value.code == "POLICY-NOT-MET") is stored
    gateway.state(artifact, CH.seat, SG.seat)
    for revision in ("main", COMMIT):
        assert (await routes.snapshot("org/tiny", revision, _anybody)).artifact == artifact


async def test_what_a_member_signed_with_a_lost_key_is_not_followed(gateway: Gateway) -> None:
    gateway.state(gateway.publish(), CH.seat, SG.seat)
    assert (await gateway.asked()).continues
    lost = Compromise(SG.seat.signer.public.id, SG.seat.inception.home, 0)
    said = Advisory(SG.seat.inception.author, SG.seat.id, KEY_COMPROMISE, "critical", "gone", lost)
    gateway.say(sign_content(said, SG.seat.signer).line)
    assert await gateway.refusal() is NO_REPOSITORY


async def test_what_was_logged_before_this_version_is_found(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node keeps statements of a kind that it does not know, and reads them after an update."""
    artifact = gateway.publish()
    with monkeypatch.context() as earlier:
        earlier.setattr("comity.ledger.intake.KNOWN_PREDICATES", KNOWN_PREDICATES - {CONTINUES})
        gateway.state(artifact, CH.seat, SG.seat)
    assert (await gateway.asked()).artifact == artifact


async def test_members_are_counted_again_only_after_something_was_said_that_may_change_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    count = gateway.catalogue.local_artifacts.continued_commits

    async def counting(repository: str) -> Mapping[str, ContinuedCommit]:
        asked.append(repository)
        return await count(repository)

    monkeypatch.setattr(gateway.catalogue.local_artifacts, "continued_commits", counting)
    gateway.state(gateway.publish(), CH.seat, SG.seat)
    for _ in range(2):
        gateway.publish("inst/another@v1", content=b"another")
        assert (await gateway.asked_header()).endswith("members=2")
    assert len(asked) == 1
    gateway.state((await gateway.asked()).artifact, ES.seat)
    assert (await gateway.asked_header()).endswith("members=3")


class Doors:
    """Every handler that serves an artifact by a name, for a reader whose token does not cover the names `beyond`."""

    def __init__(self, gateway: Gateway, beyond: Sequence[str] = ("inst/kept",)) -> None:
        self.asked = list[str]()
        self._beyond = beyond
        access: Any = SimpleNamespace(require=self._require, for_readers_of=GatewayAccess.for_readers_of)
        access.permit = partial(GatewayAccess.permit, access)
        listed: Any = SimpleNamespace(ledger=None)
        others: Any = None
        routes = ReadThroughRoutes(gateway.pools, None, gateway.catalogue, gateway.made)

        async def now() -> int:
            return 0

        self.registry = Registry(routes, gateway.pools, now, gateway.catalogue.changes)
        images = ImageRegistry(self.registry, others)
        hub = HubRoutes(Settings(url="http://a"), gateway.pools, listed, others, routes, access, others)
        oci = OciRoutes(self.registry, routes, others, access, others)
        of_images = ImageRoutes(images, routes, access, others)
        self.wheels = WheelRoutes(routes, gateway.pools, access)
        digest = f"sha256:{sha256(b'any')}"
        of_image = [("accept", IMAGE_MANIFEST)]
        self.all: dict[str, Callable[[], Awaitable[Response]]] = {
            "hub": partial(hub.repository_view, asking(f"/api/models/org/tiny/revision/{COMMIT}")),
            "versions at the hub": partial(hub.repository_view, asking("/api/models/org/tiny/refs")),
            "access at the hub": partial(hub.repository_view, asking("/api/models/org/tiny/auth-check")),
            "file of the hub": partial(hub.resolve, asking(f"/org/tiny/resolve/{COMMIT}/model.gguf")),
            "tags": partial(oci.tags, asking()),
            "manifest by tag": partial(oci.manifest, asking(reference="latest", headers=of_image)),
            "manifest of Ollama": partial(oci.manifest, asking(reference="latest")),
            "manifest by digest": partial(oci.manifest, asking(reference=digest)),
            "signature": partial(oci.manifest, asking(reference=digest.replace(":", "-") + ".sig")),
            "blob": partial(oci.blob, asking(digest=digest)),
            "tags of images": partial(of_images.tags, asking()),
            "image by tag": partial(of_images.manifest, asking(reference="latest")),
            "image by digest": partial(of_images.manifest, asking(reference=digest)),
            "blob of an image": partial(of_images.blob, asking(digest=digest)),
            "wheels": partial(self.wheels.projects, asking(revision=COMMIT)),
            "wheels of a project": partial(self.wheels.project, asking(revision=COMMIT, project="foo")),
        }

    async def _require(self, request: Request, repository: str) -> None:
        self.asked.append(repository)
        if repository in self._beyond:
            raise Refused("the token does not cover this repository", code="TOKEN-SCOPE")

    async def close(self) -> None:
        await self.registry.close()
        await self.wheels.close()


def asking(path: str = "/x", headers: Sequence[tuple[str, str]] = (), **params: str) -> Request:
    listed = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    return Request({**scope, "headers": listed, "path_params": {"namespace": "org", "name": "tiny", **params}})


async def test_another_name_leads_no_reader_to_what_its_token_does_not_cover(gateway: Gateway) -> None:
    """At every door: that of registry clients and that of installers had no look at the artifact's own name."""
    gateway.state(gateway.publish(), CH.seat, SG.seat)
    doors = Doors(gateway)
    for name, ask in doors.all.items():
        doors.asked.clear()
        with pytest.raises(Refused) as refused:
            await ask()
        assert (name, refused.value.code, doors.asked[-1]) == (name, "TOKEN-SCOPE", "inst/kept")
    await doors.close()


async def test_a_continued_artifact_that_its_publisher_withdrew_is_marked_at_every_door(gateway: Gateway) -> None:
    artifact = gateway.publish(file="foo-1.0-py3-none-any.whl")
    gateway.state(artifact, CH.seat, SG.seat)
    doors = Doors(gateway, beyond=())
    subject = (await doors.registry.pack(await gateway.asked())).manifest
    assert subject is not None

    async def marks() -> tuple[bool, bool]:
        index = await doors.registry.referrers("org/tiny", subject.digest, None, _anybody)
        wheels = await doors.all["wheels of a project"]()
        return b"withdrawn by its publisher" in index, b"data-yanked" in bytes(wheels.body)

    assert await marks() == (False, False)
    yank = Advisory(PUBLISHER.inception.author, artifact, "yank", "high", "broken")
    gateway.say(sign_content(yank, PUBLISHER.signer).line)
    assert await marks() == (True, True)
    await doors.close()


async def test_two_versions_of_the_same_bytes_keep_their_names_and_licences(gateway: Gateway) -> None:
    files, terms = {"model.gguf": b"weights"}, {"v1": "CC-BY-NC-4.0", "v2": "MIT"}
    for version, spdx in terms.items():
        _, entry, manifest, _ = release(files, by=PUBLISHER, name=f"inst/kept@{version}", spdx=spdx)
        gateway.store.put(sha256(manifest), manifest)
        gateway.say(entry.line)
    for version in ("v1", "v2", "v1"):
        snapshot = await gateway.catalogue.snapshot("inst/kept", version)
        assert (snapshot.label, snapshot.licence) == (version, terms[version])


async def test_a_signature_of_an_image_is_that_of_the_publisher_of_the_name(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked first under another name of the same bytes decided for ten minutes what a cluster could check."""
    asked = list[Digest | None]()
    said = gateway.catalogue.local_artifacts.said_of_image

    async def noted(artifact: Digest, publisher: Digest | None, image: Digest) -> Any:
        asked.append(publisher)
        return await said(artifact, publisher, image)

    monkeypatch.setattr(gateway.catalogue.local_artifacts, "said_of_image", noted)
    gateway.publish()
    gateway.publish("other/kept@v1", STRANGER)
    doors = Doors(gateway)
    for name in ("other/kept", "inst/kept", "other/kept"):
        snapshot = await gateway.catalogue.snapshot(name, "v1")
        subject = (await doors.registry.pack(snapshot)).manifest
        assert subject is not None
        await doors.registry.referrers(name, subject.digest, None, _anybody)
    assert set(asked) == {PUBLISHER.id, STRANGER.id}
    await doors.close()


async def _anybody(name: str) -> None: ...
