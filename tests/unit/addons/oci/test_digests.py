"""The search for a digest in a repository of a registry: what is opened for it, and how much one request reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.addons.oci import digests
from comity.addons.oci.digests import DigestSet, PackDigests, PackIndex
from comity.addons.oci.manifests import make_pack
from comity.addons.oci.registry import Registry
from comity.gateway.hub.mirrored import LocalStatements
from comity.gateway.hub.views import ServedRevision
from comity.node.threads import Pools
from comity.rules.image_summary import SaidOfImage
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, PolicyNotMet, Unavailable
from comity.trust.statement import SideObject

SHARED = sha256(b"in every version")


class Repository:
    """A repository of a publisher. `opened`, `read` and `said` are the versions that were opened, whose manifests were
    read, and whose statements were."""

    def __init__(self, versions: int) -> None:
        self.manifests = {f"v{number}": manifest(number) for number in range(versions)}
        self.refused = set[str]()
        self.opened, self.read, self.said = list[str](), list[str](), list[Digest]()
        self.pools = Pools()
        local = SimpleNamespace(
            manifest=self.manifest, statements=self.statements, said_of_image=self.said_of_image, withdrawn=self.gone
        )
        routes: Any = SimpleNamespace(
            catalogue=SimpleNamespace(local_artifacts=local), revisions=self.revisions, snapshot=self.snapshot
        )
        changes: Any = SimpleNamespace(now=self.now, changed=lambda since, subjects: False)
        self.registry = Registry(routes, self.pools, self.now, changes)

    async def now(self) -> int:
        return 0

    async def revisions(self, name: str) -> list[ServedRevision]:
        return [ServedRevision(version, side_object(each)) for version, each in self.manifests.items()]

    async def snapshot(self, name: str, revision: str, permit: object) -> Any:
        self.opened.append(revision)
        if revision in self.refused:
            raise PolicyNotMet(f"{revision} is not served")
        found = self.manifests[revision]
        return SimpleNamespace(artifact=found.digest, manifest=found, claim=None)

    def manifest(self, item: SideObject) -> Manifest:
        version, found = next(each for each in self.manifests.items() if each[1].digest == item.digest)
        self.read.append(version)
        return found

    async def statements(self, artifact: Digest) -> LocalStatements:
        self.said.append(artifact)
        return LocalStatements()

    async def said_of_image(self, *about: object) -> SaidOfImage:
        return SaidOfImage()

    async def gone(self, artifact: Digest) -> bool:
        return False

    async def blob(self, digest: Digest) -> str:
        """The version in which a blob is found, or the code of the error."""
        try:
            found = await self.registry.blob("inst/tiny", digest, cast(Any, None))
        except ComityError as error:
            return error.code
        return next(name for name, each in self.manifests.items() if each.digest == found.snapshot.artifact)


def manifest(number: int) -> Manifest:
    return Manifest.of([FileEntry("config.json", 7, SHARED), FileEntry("own.gguf", 7, own_file(number))])


def own_file(number: int) -> Digest:
    return sha256(b"of version %d" % number)


def side_object(found: Manifest) -> SideObject:
    return SideObject.of(found.encode())


@pytest.fixture
async def repository() -> AsyncIterator[Repository]:
    made = Repository(versions=6)
    yield made
    await made.registry.close()
    made.pools.close()


async def test_only_a_version_that_has_the_digest_is_opened(repository: Repository) -> None:
    assert await repository.blob(own_file(1)) == "v1"
    assert repository.opened == ["v1"]
    assert await repository.blob(SHARED) == "v5"
    image = make_pack(repository.manifests["v2"]).manifest
    assert image is not None
    document, _ = await repository.registry.manifest("inst/tiny", image.digest, cast(Any, None))
    assert document == image and repository.opened == ["v1", "v5", "v2"]
    assert sorted(repository.read) == sorted(set(repository.read)), "no manifest is read twice"


async def test_a_version_that_has_the_digest_and_is_not_served_says_why(repository: Repository) -> None:
    repository.refused = {"v1", "v5"}
    assert await repository.blob(own_file(1)) == "POLICY-NOT-MET"
    assert await repository.blob(SHARED) == "v4"


async def test_one_request_reads_a_limited_number_of_manifests_and_the_next_goes_on(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_READ", 2 * side_object(manifest(0)).size)
    answers = []
    for at_most in (2, 4, 6):
        answers.append(await repository.blob(own_file(0)))
        assert len(repository.read) <= at_most
    assert answers == ["STILL-SEARCHING", "STILL-SEARCHING", "v0"]
    assert await repository.blob(own_file(5)) == "v5"


async def test_one_request_reads_the_statements_of_a_limited_number_of_versions(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_MADE", 2)
    answers = [await repository.blob(sha256(b"nobody has it")) for _ in range(5)]
    assert answers == ["STILL-SEARCHING"] * 2 + ["NO-SUCH-FILE"] * 3
    assert len(repository.said) == 6
    assert set(repository.opened) == {"v5"}, "only the newest, whose proofs change"


async def test_a_list_of_referrers_is_not_empty_because_the_search_did_not_end(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_READ", 1)
    with pytest.raises(Unavailable) as raised:
        await repository.registry.referrers("inst/tiny", sha256(b"image"), None, cast(Any, None))
    assert raised.value.code == "STILL-SEARCHING"


async def test_a_manifest_that_is_lost_keeps_no_other_version_from_being_found(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(item: SideObject) -> Manifest:
        if item.digest != repository.manifests["v0"].digest:
            raise NotFound("it is lost")
        return repository.manifests["v0"]

    monkeypatch.setattr(repository.registry._catalogue.local_artifacts, "manifest", lost)
    monkeypatch.setattr(digests, "MAX_READ", 1)
    assert await repository.blob(own_file(0)) == "v0"


async def test_what_is_kept_of_packs_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MAX_KEPT", 2 * (digests.PACK + len(PackDigests.of(make_pack(manifest(0))).all)))
    index = PackIndex(cast(Any, None), cast(Any, None))
    for number in range(3):
        index.add(manifest(number).digest, PackDigests.of(make_pack(manifest(number))))
    assert list(index._kept) == [manifest(1).digest, manifest(2).digest]


def test_a_set_of_digests_has_what_was_put_in() -> None:
    has, lacks = ([sha256(b"%s %d" % (kind, number)) for number in range(100)] for kind in (b"in", b"out"))
    made = DigestSet.of([*has, *has])
    assert len(made) == 100 and all(map(made.may_have, has)) and not any(map(made.may_have, lacks))
    assert not DigestSet.of([]).may_have(has[0])
