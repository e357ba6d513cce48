"""Repositories that a node mirrored, read through its gateway: under their own names, with the commit ids of the
upstream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.gateway.hub.mirrored import MirroredRepository, ObservedArtifact
from comity.rules.git_ids import commit_id
from comity.trust.encoding import sha256
from comity.trust.statement import parse_entry
from comity.trust.upstream import Observed
from comity.wire.upstream import ImportDone, ImportOrder
from support.federation import until
from support.gateway import GatewayNode, gateway_node, looking_at_each_request
from support.hub_like import HubLike, hub_like
from support.importing import FILES, NAME, WEIGHTS
from support.publisher import model
from support.stock import Stock
from support.waiting import PATIENCE

HASHES = {path: sha256(data) for path, data in FILES.items()}


@pytest.fixture(autouse=True)
def _what_was_logged_is_seen_at_once() -> Iterator[None]:
    with looking_at_each_request():
        yield


@pytest.fixture
def hub() -> Iterator[HubLike]:
    with hub_like() as made:
        made.repository(NAME).card = {"license": "mit"}
        yield made


async def mirror(node: GatewayNode, hub: HubLike, revision: str = "main", name: str = NAME) -> ImportDone:
    order = ImportOrder(f"hf:{name}@{revision}", hub.url, hosts=(hub.cdn.removeprefix("http://"),))
    async with node.home.operator() as client, aclosing(client.with_timeout(60).upstream.run(order)) as events:
        found = [event async for event in events]
    assert isinstance(found[-1], ImportDone)
    return found[-1]


@pytest.mark.slow
async def test_a_stock_client_gets_a_mirrored_repository_under_its_own_name_and_commit(
    tmp_path: Path, hub: HubLike
) -> None:
    commit = hub.repository(NAME).commit(FILES, tag="v1").sha
    async with gateway_node(tmp_path) as node:
        await mirror(node, hub)
        await mirror(node, hub, "v1")
        steps = ["info", "refs", "snapshot", "cache_verify", "search", "exists"]
        said: dict[str, Any] = {"repository": NAME, "revision": "main", "file": "config.json", "search": "tiny"}
        found = await Stock(node.url, tmp_path / "hf").run(steps, **said)
        by_commit = await Stock(node.url, tmp_path / "other").run(["snapshot"], **{**said, "revision": commit})
    assert (found["info"]["id"], found["info"]["sha"]) == (NAME, commit)
    assert found["refs"] == {"branches": {"main": commit}, "tags": {}}  # it was mirrored once, as main
    assert found["snapshot"] == {"commit": commit, "files": HASHES}
    assert by_commit["snapshot"] == found["snapshot"]
    assert found["cache_verify"] is True
    assert found["search"] == [NAME]
    assert found["exists"][:3] == [True, False, True]
    assert "no publisher signed it" in found["stderr"]


async def test_the_warning_names_the_repository_that_was_asked_for_and_no_other_with_the_same_bytes(
    tmp_path: Path, hub: HubLike
) -> None:
    others = ("aaa/copy", "org/copy", "zzz/copy")
    commits = {name: hub.repository(name).commit(FILES).sha for name in (NAME, *others)}
    async with gateway_node(tmp_path) as node:
        for name in commits:
            await mirror(node, hub, name=name)
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:
            for name, commit in commits.items():
                warning = (await client.get(f"/api/models/{name}")).headers["X-HF-Warning"]
                assert f"mirrored from hf:{name}@{commit}" in warning
                assert not any(f"hf:{other}@" in warning for other in commits if other != name)


async def test_main_is_the_commit_that_this_node_mirrored_last_and_old_commits_stay(
    tmp_path: Path, hub: HubLike
) -> None:
    first = hub.repository(NAME).commit(FILES).sha
    async with gateway_node(tmp_path) as node:
        await mirror(node, hub)
        second = hub.repository(NAME).commit({**FILES, "config.json": b'{"later": 1}\n'}).sha
        await mirror(node, hub)
        async with httpx2.AsyncClient(base_url=node.url, follow_redirects=True, timeout=PATIENCE) as client:
            shas = [(await client.get(f"/api/models/{NAME}/revision/{r}")).json()["sha"] for r in ("main", first)]
            old = await client.get(f"/{NAME}/resolve/{first}/config.json")
            head = await client.head(f"/{NAME}/resolve/main/weights.bin")
            unknown = await client.get(f"/api/models/{NAME}/revision/{'5' * 40}")
            spelled = await client.get(f"/api/models/{NAME.upper()}")
    assert shas == [second, first]
    assert old.content == FILES["config.json"]
    assert head.headers["X-Repo-Commit"] == second
    assert head.headers["ETag"] == f'"{sha256(WEIGHTS)}"'
    assert unknown.headers["X-Error-Code"] == "RevisionNotFound"
    assert spelled.json()["id"] == NAME


async def test_a_mirrored_name_stays_the_mirror_after_a_later_publication(tmp_path: Path, hub: HubLike) -> None:
    commit = hub.repository(NAME).commit(FILES).sha
    async with gateway_node(tmp_path) as node:
        await mirror(node, hub)
        release = await node.publish(model(tmp_path / "other", weights=1_000), f"{NAME}@v1")
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:
            for revision in ("main", commit):
                answer = await client.get(f"/api/models/{NAME}/revision/{revision}")
                assert answer.json()["sha"] == commit, revision
            refs = (await client.get(f"/api/models/{NAME}/refs")).json()
            assert [branch["targetCommit"] for branch in refs["branches"]] == [commit]
            assert refs["tags"] == []
            rival = await client.get(f"/api/models/{NAME}/revision/v1")
            assert rival.headers["X-Error-Code"] == "RevisionNotFound"
            exact = await client.get(f"/api/models/{NAME}/revision/sha256:{release.artifact}")
            assert exact.json()["sha"] == commit_id(release.ingested.manifest)


async def test_a_publisher_with_a_bound_namespace_has_priority_over_the_mirror(tmp_path: Path, hub: HubLike) -> None:
    commit = hub.repository("tests/tiny").commit(FILES).sha
    async with gateway_node(tmp_path) as node:
        await mirror(node, hub, name="tests/tiny")
        release = await node.publish(model(tmp_path / "other", weights=1_000), "tests/tiny@v1")
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:

            async def published() -> bool:
                main = await client.get("/api/models/tests/tiny/revision/main")
                return bool(main.json()["sha"] == commit_id(release.ingested.manifest))

            await until(published, what="the gateway to notice the publication")
            assert (await client.get(f"/api/models/tests/tiny/revision/{commit}")).json()["sha"] == commit


async def test_a_node_keeps_serving_its_mirrored_bytes_though_another_observed_different_ones(
    tmp_path: Path, hub: HubLike
) -> None:
    commit = hub.repository(NAME).commit(FILES).sha
    async with gateway_node(tmp_path) as node:
        done = await mirror(node, hub)
    true = seen(done, {"CH"}, here=True)
    other = replace(true.observed, artifact=sha256(b"other bytes"))
    lie = replace(true, observed=other, members=seen(done, {"SG", "ES"}, here=False).members, here=False)

    def served(*found: ObservedArtifact) -> MirroredRepository:
        return MirroredRepository(NAME, {commit: {each.observed.artifact: each for each in found}}, {"main": commit})

    assert served(true, lie).selected(commit) == true
    assert served(true, lie).notices(commit, true.observed.artifact)[0][0] == "upstream"
    chosen = served(replace(true, here=False), lie).selected(commit)
    assert chosen == lie, "if it fetched none, the artifact that most members fetched"
    equal = replace(lie, members=frozenset({sha256(b"SG")}))
    assert served(replace(true, here=False), equal).selected(commit).observed == true.observed, (
        "the artifact that was proven first"
    )
    later = MirroredRepository(NAME, {commit: {true.observed.artifact: true}, "f" * 40: {other.artifact: equal}}, {})
    assert later.commit("main") == commit


def seen(done: ImportDone, members: set[str], *, here: bool) -> ObservedArtifact:
    """The observation in the log of a node that mirrored; fetched by `members`."""
    entry = parse_entry(done.line)
    observed = Observed.parse(entry.statement)
    return ObservedArtifact(entry, observed, frozenset(sha256(each.encode()) for each in members), here)


async def test_a_policy_of_the_owner_decides_for_mirrored_repositories_too(tmp_path: Path, hub: HubLike) -> None:
    hub.repository(NAME).commit(FILES)
    (tmp_path / "policy.toml").write_text('[upstream]\ncorroborated = 2\n[rows]\nrequire = ["artifact"]\n')
    async with gateway_node(tmp_path, policy=str(tmp_path / "policy.toml")) as node:
        await mirror(node, hub)
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:
            refused = await client.get(f"/api/models/{NAME}")
    assert refused.status_code in (403, 503)
    assert "1 member mirrored it" in refused.headers["X-Error-Message"]
