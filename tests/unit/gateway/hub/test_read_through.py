"""Read-through: of which names the upstream is asked, what is served meanwhile, and which errors a client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.hub import read_through as module
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import MAIN
from comity.node.threads import Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Refused, Unavailable, Untrusted
from comity.trust.upstream import Upstream

COMMIT = "1f" * 20
MANIFEST = Manifest.of([FileEntry("config.json", 2, sha256(b"{}"))])
UPSTREAM = Upstream("https://hub.example", "org/tiny", COMMIT, "main")
UNKNOWN = NotFound("no repository org/tiny", code="NO-SUCH-REPOSITORY")
KNOWN: Any = SimpleNamespace(continues=None)
NO_REVISION = NotFound("no revision", code="NO-SUCH-REVISION")


async def anybody(name: str) -> None:
    """A reader who may read everything."""


class Import:
    """An import whose manifest, or failure, a test chooses; None is a complete one."""

    def __init__(self, described: Any) -> None:
        self.answer = described
        self.revision = SimpleNamespace(upstream=UPSTREAM, licence="mit")

    async def described(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Continued:
    """Continuations: `found` for a name and a revision; `asked` are those that were asked for."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Any] = {}
        self.asked: list[tuple[str, str, str]] = []

    async def snapshot(self, name: str, revision: str, missing: NotFound) -> Any:
        self.asked.append((name, revision, missing.code))
        if (name, revision) not in self.found:
            raise missing
        return self.found[name, revision]


class Scene:
    """A catalogue that knows `known`, and an upstream that has `revisions`; `asked` is what the upstream was asked."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Any] = {}
        self.missing: ComityError = UNKNOWN
        self.owner: Any = None
        self.enabled = self.allowed = True
        self.revisions: dict[str, Any] = {MAIN: SimpleNamespace(upstream=UPSTREAM)}
        self.importing = Import(MANIFEST)
        self.asked: list[str] = []
        self.continuations: Any = Continued()
        self.judge = SimpleNamespace(by_own_policy=False, advisories=lambda evidence: (("advisory", "do not"),))
        self.evidence_found = False
        self.local_artifacts = self
        self.never = False

    # the catalogue

    async def snapshot(self, name: str, revision: str) -> Any:
        if (name, revision) in self.known:
            return self.known[name, revision]
        raise self.missing

    async def repository(self, name: str) -> Any:
        if self.owner is None:
            raise UNKNOWN
        return self.owner

    async def canonical_name(self, name: str) -> str:
        raise self.missing

    refs = canonical_name

    async def evidence(self, manifest: Manifest) -> Any:
        if not self.evidence_found:
            raise NotFound("no statements")
        return SimpleNamespace(evidence=object())

    # the imports

    def allows(self, name: str) -> bool:
        return self.allowed

    async def pin(self, name: str, revision: str) -> Any:
        self.asked.append(revision)
        if self.never:
            await asyncio.Event().wait()
        found = self.revisions.get(revision, NotFound("no", why="the Hub has none", code="UPSTREAM-NOT-FOUND"))
        if isinstance(found, Exception):
            raise found
        return found

    def import_of(self, revision: Any) -> Import:
        return self.importing


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def routes(scene: Any, pools: Pools, *, imports: bool = True) -> ReadThroughRoutes:
    return ReadThroughRoutes(pools, scene if imports else None, scene, scene.continuations)


async def refusal(made: ReadThroughRoutes, revision: str = MAIN) -> ComityError:
    with pytest.raises(ComityError) as raised:
        await made.snapshot("org/tiny", revision, anybody)
    return raised.value


async def test_what_the_catalogue_has_is_served_and_nobody_is_asked(scene: Scene, pools: Pools) -> None:
    scene.known["org/tiny", MAIN] = KNOWN
    assert await routes(scene, pools).snapshot("org/tiny", MAIN, anybody) == KNOWN
    assert scene.asked == []


async def test_an_import_is_served_with_a_notice_before_it_is_complete(scene: Scene, pools: Pools) -> None:
    made = routes(scene, pools)
    found = await made.snapshot("org/tiny", MAIN, anybody)
    assert (found.repository, found.artifact, found.commit, found.author) == (
        "org/tiny",
        MANIFEST.digest,
        COMMIT,
        "org",
    )
    ((kind, notice),) = found.notices
    assert kind == "mirrored" and "being mirrored from hub.example" in notice and "no publisher signed it" in notice
    scene.evidence_found = True
    assert (await made.snapshot("org/tiny", MAIN, anybody)).notices == found.notices  # computed once for an import
    scene.importing = Import(MANIFEST)
    assert (await made.snapshot("org/tiny", MAIN, anybody)).notices[1:] == (("advisory", "do not"),)


@pytest.mark.parametrize(
    ("imports", "enabled", "missing"),
    [
        (False, True, UNKNOWN),
        (True, False, UNKNOWN),
        (True, True, NotFound("withdrawn", code="NOT-HELD")),
    ],
)
async def test_the_upstream_is_asked_only_for_unknown_names_and_where_it_is_set(
    scene: Scene, pools: Pools, imports: bool, enabled: bool, missing: NotFound
) -> None:
    scene.enabled, scene.missing = enabled, missing
    assert await refusal(routes(scene, pools, imports=imports)) is missing
    assert scene.asked == []


async def test_a_name_that_is_not_allowed_is_refused_with_the_setting(scene: Scene, pools: Pools) -> None:
    scene.allowed = False
    error = await refusal(routes(scene, pools))
    assert error.code == "UPSTREAM-NOT-ALLOWED" and "allow in [upstream]" in error.hint
    scene.missing = NO_REVISION
    assert await refusal(routes(scene, pools)) is NO_REVISION and scene.asked == []


@pytest.mark.parametrize("mirrored", [True, False])
async def test_the_name_of_a_publisher_is_never_taken_from_the_upstream(
    scene: Scene, pools: Pools, mirrored: bool
) -> None:
    scene.owner, scene.missing = SimpleNamespace(mirrored=mirrored), NO_REVISION
    made = routes(scene, pools)
    if mirrored:
        assert (await made.snapshot("org/tiny", MAIN, anybody)).commit == COMMIT
    else:
        assert await refusal(made) is NO_REVISION and scene.asked == []


async def test_the_own_policy_waits_for_a_complete_artifact(scene: Scene, pools: Pools) -> None:
    scene.judge.by_own_policy = True
    error = await refusal(routes(scene, pools))
    assert (type(error), error.code) == (Unavailable, "ON-ITS-WAY") and "policy" in error.why


async def test_a_complete_import_is_that_of_the_catalogue(scene: Scene, pools: Pools) -> None:
    scene.importing = Import(None)
    error = await refusal(routes(scene, pools))
    assert error.code == "ON-ITS-WAY" and "imported just now" in error.why
    scene.known["org/tiny", COMMIT] = KNOWN
    assert await routes(scene, pools).snapshot("org/tiny", MAIN, anybody) == KNOWN


@pytest.mark.parametrize(
    ("revision", "main", "code"),
    [
        (MAIN, None, "NO-SUCH-REPOSITORY"),
        ("v9", True, "NO-SUCH-REVISION"),
        ("v9", None, "NO-SUCH-REPOSITORY"),
    ],
)
async def test_a_revision_that_the_upstream_lacks_is_told_from_a_repository(
    scene: Scene, pools: Pools, revision: str, main: bool | None, code: str
) -> None:
    if main is None:
        scene.revisions.clear()
    assert (await refusal(routes(scene, pools), revision)).code == code


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (Malformed("bad", why="two slashes", code="BAD-NAME"), NotFound, "NO-SUCH-REPOSITORY"),
        (Malformed("no list"), Unavailable, "NOT-HERE"),
        (Untrusted("another hash"), Unavailable, "NOT-HERE"),
        (Refused("gated", code="UPSTREAM-GATED"), Refused, "UPSTREAM-GATED"),
        (NotFound("gone", code="OTHER"), NotFound, "NO-SUCH-REPOSITORY"),
    ],
)
async def test_a_failure_of_the_upstream_is_not_that_of_the_client(
    scene: Scene, pools: Pools, failure: ComityError, kind: type[ComityError], code: str
) -> None:
    scene.revisions[MAIN] = failure
    error = await refusal(routes(scene, pools))
    assert (type(error), error.code) == (kind, code)


async def test_a_manifest_that_cannot_be_made_is_transient(scene: Scene, pools: Pools) -> None:
    scene.importing = Import(Untrusted("a file differs"))
    assert (await refusal(routes(scene, pools))).code == "NOT-HERE"


async def test_a_client_gets_an_answer_before_it_gives_up(
    scene: Scene, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.01)
    scene.never = True
    error = await refusal(routes(scene, pools))
    assert (type(error), error.code, error.hint) == (Unavailable, "ON-ITS-WAY", "try again in a few seconds")


async def test_during_an_import_a_repository_has_its_main_branch(scene: Scene, pools: Pools) -> None:
    made = routes(scene, pools)
    refs = await made.refs("ORG/tiny", anybody)
    assert (dict(refs.commits), refs.main) == ({}, COMMIT)
    assert await made.canonical_name("ORG/tiny", MAIN, anybody) == "org/tiny"


async def test_a_continuation_is_asked_for_only_after_the_upstream_has_none(scene: Scene, pools: Pools) -> None:
    scene.continuations.found = {("org/tiny", MAIN): KNOWN}
    made = routes(scene, pools)
    assert (await made.snapshot("org/tiny", MAIN, anybody)).commit == COMMIT and scene.continuations.asked == []
    scene.revisions.clear()
    assert await made.snapshot("org/tiny", MAIN, anybody) == KNOWN
    scene.revisions[MAIN] = Unavailable("the Hub does not answer", code="UPSTREAM-UNREACHABLE")
    assert (await refusal(made)).code == "UPSTREAM-UNREACHABLE", "a Hub that is down may have it"


async def test_without_imports_what_the_catalogue_lacks_may_be_continued(scene: Scene, pools: Pools) -> None:
    scene.continuations.found = {("org/tiny", "v1"): KNOWN}
    made = routes(scene, pools, imports=False)
    assert await made.snapshot("org/tiny", "refs/tags/v1", anybody) == KNOWN
    assert (await refusal(made)).code == "NO-SUCH-REPOSITORY"
    scene.allowed = False
    assert (await refusal(routes(scene, pools))).code == "UPSTREAM-NOT-ALLOWED"
    assert [code for *_, code in scene.continuations.asked][-1] == "UPSTREAM-NOT-ALLOWED"


async def test_a_mirror_that_the_policy_refuses_does_not_stand_in_the_way(scene: Scene, pools: Pools) -> None:
    """One member claims that a folder is the repository: nobody else has to read that, nor to go without."""
    scene.missing = PolicyNotMet("hf:org/tiny is not served", why="nobody fetched it", code="POLICY-NOT-MET")
    made = routes(scene, pools)
    assert await refusal(made) is scene.missing
    scene.continuations.found = {("org/tiny", MAIN): KNOWN}
    assert await made.snapshot("org/tiny", MAIN, anybody) == KNOWN
    scene.owner = SimpleNamespace(mirrored=False)
    assert await refusal(made) is scene.missing, "the name of a publisher is not continued"


async def test_a_continuation_has_a_main_branch_of_its_own_kind(scene: Scene, pools: Pools) -> None:
    scene.revisions.clear()
    scene.continuations.found = {("org/tiny", MAIN): SimpleNamespace(continues=None, commit=COMMIT, kind="dataset")}
    refs = await routes(scene, pools).refs("org/tiny", anybody)
    assert (dict(refs.commits), refs.main, refs.kind) == ({}, COMMIT, "dataset")
