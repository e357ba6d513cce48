"""Kinds of artifacts at the gateway: each is answered at its own routes, and the others name these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from comity.content.gateway_tokens import TokenFile
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.names import Name
from comity.upstream.guarded import http_module
from huggingface_hub import DatasetInfo, HfApi, set_client_factory, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from support.federation import until
from support.gateway import GatewayNode, gateway_node, looking_at_each_request
from support.publisher import Publisher
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = '{"question":"2 + 2","answer":"4"}\n{"question":"3 + 3","answer":"6"}\n'
KINDS = {
    "model": None, "questions": "dataset", "scores": "evaluation-set", "vectors": "embedding-store",
    "tuned": "adapter", "sounds": "sound-bank",
}  # fmt: skip


def folder_of(path: Path, name: str) -> Path:
    path.mkdir()
    (path / "train.jsonl").write_text(ROWS)
    (path / "name.txt").write_text(name)
    return path


@pytest.fixture(scope="module", autouse=True)
def _the_hub_library_has_a_client_of_its_own() -> Iterator[None]:
    """An import in this process, of a test before, has given the library a client that sends nothing but imports."""
    module = http_module()
    set_client_factory(lambda: module.Client(follow_redirects=True, timeout=PATIENCE))
    yield
    http_module.cache_clear()  # the next import gives it that client again


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    folder = tmp_path_factory.mktemp("node")
    with looking_at_each_request():
        async with gateway_node(folder) as running:
            for name, kind in KINDS.items():
                await running.publish(folder_of(folder / name, name), f"tests/{name}@v1", kind=kind)
            yield running


def client(node: GatewayNode, **more: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE, **more)


ADDRESSES = (
    "/api/{type}/tests/{name}", "/api/{type}/tests/{name}/revision/v1", "/api/{type}/tests/{name}/tree/main",
    "/api/{type}/tests/{name}/refs", "/api/{type}/tests/{name}/commits/v1",
    "{prefix}/tests/{name}/resolve/v1/train.jsonl",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    (
        ("model", "models", "datasets"),
        ("tuned", "models", "datasets"),
        ("questions", "datasets", "models"),
        ("scores", "datasets", "models"),
        ("vectors", "datasets", "models"),
    ),
)
async def test_an_artifact_is_answered_at_the_routes_of_its_kind_alone(
    node: GatewayNode, name: str, right: str, wrong: str
) -> None:
    prefixes = {"models": "", "datasets": "/datasets"}
    async with client(node) as http:
        for address in ADDRESSES:
            here = await http.get(address.format(type=right, prefix=prefixes[right], name=name))
            assert here.status_code == 200, address
            there = await http.get(address.format(type=wrong, prefix=prefixes[wrong], name=name))
            assert (there.status_code, there.headers["X-Error-Code"]) == (404, "RepoNotFound"), address
            assert there.json()["code"] == "OTHER-KIND"
            assert f"/api/{right}/tests/{name}" in there.json()["hint"]
        body = {"paths": ["train.jsonl"]}
        assert (await http.post(f"/api/{right}/tests/{name}/paths-info/v1", json=body)).json()[0]["size"] == len(ROWS)
        assert (await http.post(f"/api/{wrong}/tests/{name}/paths-info/v1", json=body)).status_code == 404


async def test_an_unknown_kind_is_answered_at_both_and_shown_as_given(node: GatewayNode) -> None:
    async with client(node) as http:
        for kind in ("models", "datasets"):
            assert (await http.get(f"/api/{kind}/tests/sounds")).json()["kind"] == "sound-bank"


async def test_each_list_has_its_own_kinds(node: GatewayNode) -> None:
    api = HfApi(endpoint=node.url, token=False)
    models = await asyncio.to_thread(lambda: [each.id for each in api.list_models()])
    datasets: list[DatasetInfo] = await asyncio.to_thread(lambda: list(api.list_datasets(author="tests", full=True)))
    assert sorted(models) == ["tests/model", "tests/sounds", "tests/tuned"]
    assert [each.id for each in datasets] == ["tests/questions", "tests/scores", "tests/vectors"]
    assert [each.rfilename for each in datasets[0].siblings or ()] == ["name.txt", "train.jsonl"]
    async with client(node) as http:
        url, seen = "/api/datasets?limit=1", []
        while url:
            answer = await http.get(url)
            seen += [item["id"] for item in answer.json()]
            url = answer.links.get("next", {}).get("url", "")
        assert seen == ["tests/questions", "tests/scores", "tests/vectors"]
        assert [item["id"] for item in (await http.get("/api/datasets?search=score")).json()] == ["tests/scores"]


async def test_a_client_reads_a_dataset_and_is_told_of_the_wrong_type(node: GatewayNode, tmp_path: Path) -> None:
    api = HfApi(endpoint=node.url, token=False)
    info = await asyncio.to_thread(api.dataset_info, "tests/questions")
    assert info.id == "tests/questions"
    given: dict[str, Any] = {"endpoint": node.url, "cache_dir": tmp_path, "token": False}
    folder = await asyncio.to_thread(lambda: snapshot_download("tests/questions", repo_type="dataset", **given))
    assert Path(folder, "train.jsonl").read_text() == ROWS
    with pytest.raises(RepositoryNotFoundError) as refused:
        await asyncio.to_thread(api.model_info, "tests/questions")
    assert 'repo_type="dataset"' in str(refused.value)


async def test_pages_show_the_kind_and_how_it_is_loaded(node: GatewayNode) -> None:
    async with client(node, headers={"Accept": "text/html"}, follow_redirects=True) as http:
        dataset, sounds, model = [(await http.get(f"/tests/{name}")).text for name in ("questions", "sounds", "model")]
        assert "<code>dataset</code>" in dataset and "load_dataset(" in dataset and "from_pretrained(" not in dataset
        assert "<code>sound-bank</code>" in sounds and "not a kind that this version knows" in sounds
        assert "<dt>Kind</dt>" not in model and "from_pretrained(" in model
        await until(lambda: _listed(http))


async def _listed(http: httpx2.AsyncClient) -> bool:
    """Whether the catalogue, which is made in the background, has the kind of each artifact that is no model."""
    text = (await http.get("/-/catalogue")).text
    return all(f'<code class="small">{kind}</code>' in text for kind in KINDS.values() if kind)


async def test_a_token_reads_datasets_within_its_reach_alone(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        for name in ("a", "b"):
            await node.publish(folder_of(tmp_path / name, name), f"tests/{name}@v1", kind="dataset")
        secret, _ = TokenFile(node.home.directory / "tokens.json").add("some", ("tests/b",), 0)
        async with client(node, headers={"Authorization": f"Bearer {secret}"}) as http:
            assert [item["id"] for item in (await http.get("/api/datasets")).json()] == ["tests/b"]
            assert (await http.get("/datasets/tests/a/resolve/v1/train.jsonl")).status_code == 403
        async with client(node) as http:
            assert (await http.get("/api/datasets")).status_code == 401


async def test_a_correction_moves_an_artifact_to_the_other_routes_and_a_stranger_moves_nothing(tmp_path: Path) -> None:
    with looking_at_each_request():
        async with gateway_node(tmp_path) as node, client(node) as http:
            ready = await node.publish(folder_of(tmp_path / "a", "a"), "tests/a@v1")
            assert (await http.get("/api/models/tests/a")).status_code == 200
            assert (await http.get("/api/datasets")).json() == []
            by, signer = node.publisher.id, node.publisher.signer
            name = "tests/a@v1"
            stranger = Publisher.generate("stranger")
            forged = KindStated(stranger.id, Name.parse(name), ready.artifact, "dataset", 9)
            async with node.home.client() as call:
                await call.submit([stranger.announcement, sign_content(forged, stranger.signer).line])
            assert (await http.get("/api/models/tests/a")).status_code == 200
            assert (await http.get("/api/datasets")).json() == []
            stated = KindStated(by, Name.parse(name), ready.artifact, "dataset", 0)
            async with node.home.client() as call:
                await call.submit([sign_content(stated, signer).line])
            assert (await http.get("/api/models/tests/a")).status_code == 404
            assert (await http.get("/api/datasets/tests/a")).json()["kind"] == "dataset"
            assert [item["id"] for item in (await http.get("/api/datasets")).json()] == ["tests/a"]
            assert (await http.get("/api/models")).json() == []
