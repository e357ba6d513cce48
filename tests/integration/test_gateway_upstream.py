"""Repositories that this node does not have, read through the gateway while they are mirrored from their upstream,
where the settings allow it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import httpx2
import pytest
from comity.content.gateway_tokens import TokenFile
from comity.gateway.app import serve_gateway
from comity.gateway.hub import files as streams
from comity.node.importing import read_through as passages
from comity.node.importing.read_through import ReadThroughImport
from comity.trust.encoding import sha256
from comity.upstream.download import Timeouts
from comity.wire.upstream import ImportOrder
from support.federation import found, serving, until
from support.gateway import GatewayNode
from support.hub_like import Answer, HubLike, hub_like
from support.importing import FILES, NAME, WEIGHTS
from support.ports import free_port
from support.read_through_nodes import taken
from support.reading_through import fetched, held_back, reading_through
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

HEAD = 1024 * 1024
FILE = f"/{NAME}/resolve/main/weights.bin"
HASHES = {path: sha256(data) for path, data in FILES.items()}


@pytest.fixture
def hub() -> Iterator[HubLike]:
    with hub_like() as made:
        made.repository(NAME).card = {"license": "mit"}
        yield made


def reader(node: GatewayNode) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, timeout=60, follow_redirects=True)


async def whole(node: GatewayNode, path: str = FILE) -> httpx2.Response:
    """The final answer for a reader that retries when it is told to."""
    async with reader(node) as http:
        while True:
            answer = await http.get(path)
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.05)


async def logged(node: GatewayNode) -> bool:
    """Whether the node's log has an observation."""
    async with node.home.client() as client:
        return bool((await client.search(NAME)).found)


def left(node: GatewayNode) -> list[Path]:
    """Files of imports on the disk that are not in the store."""
    return [path for path in (node.home.config().storage.blobs / "partial" / "imports").glob("*/*") if path.is_file()]


async def test_a_repository_of_the_hub_is_listed_within_seconds_and_sent_while_it_arrives(
    tmp_path: Path, hub: HubLike
) -> None:
    commit = hub.repository(NAME).commit(FILES).sha
    async with reading_through(tmp_path, hub) as node, reader(node) as http:
        with held_back(hub, HEAD) as opened:
            shown = (await http.get(f"/api/models/{NAME}?blobs=true")).json()
            assert (shown["id"], shown["sha"], shown["cardData"]) == (NAME, commit, {"license": "mit"})
            assert {item["rfilename"]: item["lfs"]["sha256"] for item in shown["siblings"]} == HASHES
            head = await http.head(FILE)
            assert head.headers["ETag"] == f'"{HASHES["weights.bin"]}"'
            assert (head.headers["Content-Length"], head.headers["X-Repo-Commit"]) == (str(len(WEIGHTS)), commit)
            assert "no node has all of it yet" in head.headers["X-HF-Warning"]
            assert (await http.get(f"/{NAME}/resolve/{commit}/config.json")).content == FILES["config.json"]
            assert await taken(node.url + FILE, most=HEAD - 1) == WEIGHTS[: HEAD - 1], "the rest cannot have come"
            assert (await http.get(f"/api/models/{NAME}/refs")).json()["branches"][0]["targetCommit"] == commit
            assert not node.blob(HASHES["weights.bin"]).exists()
            opened.set()
            assert (await http.get(FILE)).content == WEIGHTS
        await until(lambda: node.blob(HASHES["weights.bin"]).exists() and not left(node), what="the import to end")
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as again:

            async def settled() -> bool:
                return "says" in (await again.head(FILE)).headers["X-HF-Warning"]

            await until(settled, what="what was imported to be served like any import")
        assert (await http.get(f"/api/models/{NAME}")).json()["sha"] == commit
        assert (await http.get(FILE)).headers["ETag"] == head.headers["ETag"]


async def test_any_number_of_readers_cause_one_fetch_a_file(tmp_path: Path, hub: HubLike) -> None:
    files = {**FILES, "more.bin": WEIGHTS[::-1], "third.bin": WEIGHTS[1:]}
    commit = hub.repository(NAME).commit(files).sha
    async with reading_through(tmp_path, hub) as node, reader(node) as http:

        async def same(number: int) -> bool:
            path = list(files)[number % len(files)]
            revision = commit if number % 2 else "main"
            return (await http.get(f"/{NAME}/resolve/{revision}/{path}")).content == files[path]

        assert all(await asyncio.gather(*(same(number) for number in range(64))))
        await until(lambda: not left(node), what="the import to end")
    assert sorted(fetched(hub)) == sorted(path.rpartition("/")[2] for path in files if files[path])
    assert len([asked for asked in hub.asked if f"/{NAME}/tree/" in asked.path]) == 1


@pytest.mark.parametrize("allow", [(), ("other/*", "org/tin")])
async def test_a_repository_that_is_not_allowed_is_not_found_and_the_hub_is_not_asked(
    tmp_path: Path, hub: HubLike, allow: tuple[str, ...]
) -> None:
    hub.repository(NAME).commit(FILES)
    async with reading_through(tmp_path, hub, allow) as node, reader(node) as http:
        for path in (FILE, f"/api/models/{NAME}", f"/api/models/{NAME}/tree/main", "/v2/org/tiny/manifests/latest"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound"), path
            assert answer.json()["code"] == "UPSTREAM-NOT-ALLOWED"
            assert "[upstream] does not allow it" in answer.headers["X-Error-Message"]
    assert not hub.asked


async def test_reading_through_needs_the_setting_and_works_for_models_only(tmp_path: Path, hub: HubLike) -> None:
    hub.repository(NAME).commit(FILES)
    async with reading_through(tmp_path / "peers", hub, cold="peers") as node, reader(node) as http:
        assert (await http.get(FILE)).json()["code"] == "NO-SUCH-REPOSITORY"
    async with reading_through(tmp_path / "upstream", hub) as node, reader(node) as http:
        assert (await http.get(f"/api/datasets/{NAME}")).json()["code"] == "NO-SUCH-REPOSITORY"
        assert (await http.get("/api/models?search=org")).json() == []
    assert not hub.asked


async def test_a_repository_that_the_hub_does_not_give_to_all_is_refused(
    tmp_path: Path, hub: HubLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "FAILURE_SECONDS", 3_600.0)
    for name in ("org/gated", "org/private", "org/there"):
        hub.repository(name).commit(FILES)
    hub.repository("org/gated").gated = "auto"
    hub.repository("org/private").private = True
    async with reading_through(tmp_path, hub) as node, reader(node) as http:

        async def said(path: str) -> tuple[int, str]:
            answer = await http.get(path)
            return answer.status_code, answer.headers["X-Error-Code"]

        assert await said("/org/gated/resolve/main/weights.bin") == (403, "GatedRepo")
        assert await said("/org/private/resolve/main/weights.bin") == (404, "RepoNotFound")
        assert await said("/api/models/org/nothing") == (404, "RepoNotFound")
        assert await said("/api/models/org/there/revision/v9") == (404, "RevisionNotFound")
        assert await said(f"/api/models/org/there/revision/{'7' * 40}") == (404, "RevisionNotFound")
        before = len(hub.asked)
        assert await said("/api/models/org/nothing") == (404, "RepoNotFound")
        assert len(hub.asked) == before, "the Hub was asked a moment ago"
    assert not fetched(hub)


async def test_a_repository_above_the_limit_is_refused_before_a_byte_is_fetched(tmp_path: Path, hub: HubLike) -> None:
    hub.repository(NAME).commit(FILES)
    async with reading_through(tmp_path, hub, most=len(WEIGHTS)) as node, reader(node) as http:
        answer = await http.get(FILE)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (507, "UPSTREAM-TOO-LARGE")
    assert not fetched(hub)


async def test_an_unreachable_hub_is_reported_with_the_next_step(
    tmp_path: Path, hub: HubLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "PIN_TIMEOUTS", Timeouts(read_timeout=1.0, max_retry_after=0.1, first_delay=0.01))
    hub.url = f"http://127.0.0.1:{free_port()}"
    async with reading_through(tmp_path, hub) as node, reader(node) as http:
        for path in (FILE, f"/api/models/{NAME}"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "UPSTREAM-UNREACHABLE")
            assert answer.headers["Retry-After"]
            assert answer.json()["hint"]


async def test_a_hub_with_a_false_hash_is_cut_off_and_nothing_is_kept(tmp_path: Path, hub: HubLike) -> None:
    hub.repository(NAME).commit(FILES)
    false = WEIGHTS[:HEAD] + bytes(len(WEIGHTS) - HEAD)
    async with reading_through(tmp_path, hub) as node, reader(node) as http:
        with held_back(hub, HEAD, lambda data: false if data == WEIGHTS else data) as opened:
            got = b""
            with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                async with http.stream("GET", FILE) as answer:
                    assert answer.status_code == 200
                    async for part in answer.aiter_raw():
                        got += part
                        opened.set()
            assert 0 < len(got) < len(WEIGHTS)
            assert false.startswith(got)
            refused = await http.get(FILE)
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (503, "NOT-HERE")
        assert "contradicts itself" in refused.headers["X-Error-Message"]
        assert not node.blob(HASHES["weights.bin"]).exists()
        assert not node.blob(sha256(false)).exists()
        assert len(WEIGHTS) not in [path.stat().st_size for path in left(node)]
        assert not await logged(node)
        later = hub.repository(NAME).commit({**FILES, "config.json": b'{"later": 1}\n'}).sha
        path = f"/{NAME}/resolve/{later}/weights.bin"
        assert (await http.get(path)).content == WEIGHTS
        resumed = await http.get(path, headers={"Range": f"bytes={len(got)}-"})
        assert (resumed.status_code, resumed.content) == (200, WEIGHTS), (
            "a reader with wrong bytes gets no further bytes"
        )


async def test_a_reader_with_wrong_bytes_gets_no_further_bytes_from_the_file_server(
    tmp_path: Path, hub: HubLike
) -> None:
    hub.repository(NAME).commit(FILES)
    async with reading_through(tmp_path, hub, files="127.0.0.1:0") as node, reader(node) as http:
        with held_back(hub, HEAD, lambda data: bytes(len(data)) if data == WEIGHTS else data) as opened:
            wrong = await taken(node.url + FILE, most=HEAD // 2)
            assert wrong == bytes(HEAD // 2)
            opened.set()
            assert len(await taken(node.url + FILE)) < len(WEIGHTS)
        lied = sorted(left(node))
        later = hub.repository(NAME).commit({**FILES, "config.json": b'{"later": 1}\n'}).sha
        path = f"/{NAME}/resolve/{later}/weights.bin"
        assert (await http.get(path)).content == WEIGHTS
        await until(
            lambda: node.blob(HASHES["weights.bin"]).exists() and sorted(left(node)) == lied, what="the import to end"
        )
        resumed = await http.get(path, headers={"Range": f"bytes={len(wrong)}-"})
        assert (resumed.status_code, resumed.content) == (200, WEIGHTS)


async def test_a_range_that_would_be_a_whole_answer_waits_for_the_hash(
    tmp_path: Path, hub: HubLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(NAME).commit(FILES)
    first, rest = {"Range": "bytes=0-99"}, {"Range": f"bytes=100-{len(WEIGHTS) - 1}"}
    async with reading_through(tmp_path, hub) as node, reader(node) as http:
        with held_back(hub, HEAD) as opened:
            assert await taken(node.url + FILE, most=HEAD // 2) == WEIGHTS[: HEAD // 2], "they have come"
            with monkeypatch.context() as hasty:
                hasty.setattr(streams, "FIRST", 0.2)
                waits = await http.get(FILE, headers=first)
            assert (waits.status_code, waits.headers["X-Error-Code"]) == (503, "ON-ITS-WAY")
            tail = asyncio.create_task(http.get(FILE, headers=rest))
            opened.set()
            assert (await tail).content == WEIGHTS[100:]
        answer = await http.get(FILE, headers=first)
        assert (answer.status_code, answer.content) == (206, WEIGHTS[:100])


async def test_the_owners_policy_judges_the_complete_artifact(tmp_path: Path, hub: HubLike) -> None:
    hub.repository(NAME).commit(FILES)
    (tmp_path / "policy.toml").write_text('[upstream]\ncorroborated = 1\n[rows]\nrequire = ["artifact", "bytes"]\n')
    async with reading_through(tmp_path, hub, policy=str(tmp_path / "policy.toml")) as node, reader(node) as http:
        with held_back(hub, HEAD) as opened:
            early = await http.head(FILE)
            assert (early.status_code, early.headers["X-Error-Code"]) == (503, "ON-ITS-WAY")
            opened.set()
        assert (await whole(node)).content == WEIGHTS


async def test_a_file_that_all_nodes_lost_is_mirrored_again(
    tmp_path: Path, hub: HubLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "ENDED_SECONDS", 0.0)
    hub.repository(NAME).commit(FILES)
    async with reading_through(tmp_path, hub) as node, reader(node) as http:
        assert (await http.get(FILE)).content == WEIGHTS
        await until(lambda: not left(node), what="the import to end")
        assert (await whole(node)).content == WEIGHTS
        node.blob(HASHES["weights.bin"]).unlink()
        assert (await whole(node)).content == WEIGHTS


async def test_a_hub_that_lists_private_blobs_of_this_node_gives_no_access_to_them(
    tmp_path: Path, hub: HubLike
) -> None:
    kept = WEIGHTS[::-1]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(kept)
    hub.repository(NAME).commit({"weights.bin": bytes(len(kept))})
    hub.tree_said = lambda entries: [entry | {"lfs": entry["lfs"] | {"oid": sha256(kept)}} for entry in entries]
    async with reading_through(tmp_path / "node", hub, public=False) as node:
        await node.publish(tmp_path / "model", "tests/kept@1")
        secret, _ = TokenFile(node.home.directory / "tokens.json").add("some", ("org/*",), 0)
        shown = {"Authorization": f"Bearer {secret}"}
        async with httpx2.AsyncClient(
            base_url=node.url, headers=shown, follow_redirects=True, timeout=PATIENCE
        ) as http:
            assert (await http.head("/tests/kept/resolve/main/weights.bin")).status_code == 403
            with held_back(hub, HEAD) as opened:
                async with http.stream("GET", FILE) as answer:
                    got = await anext(answer.aiter_raw())
                opened.set()
            assert not kept.startswith(got), "it opened what it does not have"


async def test_an_import_that_has_ended_leaves_the_memory(
    tmp_path: Path, hub: HubLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "ENDED_SECONDS", 0.0)
    hub.repository(NAME).commit(FILES)

    def alive() -> bool:
        gc.collect()
        made = (found for found in gc.get_objects() if type(found) is ReadThroughImport)
        return any(passage.revision.upstream.endpoint == hub.url for passage in made)

    async with reading_through(tmp_path, hub) as node, reader(node) as http:
        with held_back(hub, HEAD) as opened:
            assert (await http.head(FILE)).status_code == 200
            assert alive()
            opened.set()
        await until(lambda: node.blob(HASHES["weights.bin"]).exists() and not left(node), what="the import to end")
        await until(lambda: not alive(), what="the passage to be forgotten")


async def test_a_peer_that_has_the_file_is_asked_first(
    tmp_path: Path, hub: HubLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "PIN_TIMEOUTS", Timeouts(read_timeout=1.0, max_retry_after=0.1, first_delay=0.01))
    monkeypatch.setattr(passages, "FAILURE_SECONDS", 0.05)
    commit = hub.repository(NAME).commit(FILES).sha
    full, cold = found(tmp_path, 2).homes
    hosts = [hub.cdn.removeprefix("http://")]
    cold.set("replication", mirror="none")
    cold.set("gateway", cold="upstream")
    cold.set("upstream", allow=["*/*"], endpoint=hub.url, hosts=hosts)
    async with serving(full), serving(cold, companion=serve_gateway) as (listening,):
        order = ImportOrder(f"hf:{NAME}", hub.url, hosts=tuple(hosts))
        async with full.operator() as client, aclosing(client.with_timeout(60).upstream.run(order)) as events:
            assert [event async for event in events]
        asked = len(hub.asked)
        hub.interfere = lambda asked: Answer(503)
        async with httpx2.AsyncClient(base_url=listening.http, timeout=60) as http:
            path = f"/{NAME}/resolve/{commit}/weights.bin"

            async def known() -> bool:
                return (await http.head(path)).status_code == 200

            await until(known, what="the other node to know of it")
            assert (await http.get(path)).content == WEIGHTS
    assert not [request for request in hub.asked[asked:] if "/resolve/" in request.path or request.cdn]
