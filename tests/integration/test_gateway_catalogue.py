"""The catalogue for data portals at a running node: pages, who may read them, and what is left out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from comity.addons.mldcat import routes
from comity.addons.mldcat.catalogue import MEDIA_TYPE, PATH
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.gateway.hub.catalogue import Catalogue
from comity.gateway.hub.list_items import ListItems
from comity.gateway.hub.views import Snapshot
from support.federation import until
from support.gateway import GatewayNode, gateway_node
from support.publisher import Publisher, Release, model
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Has a model and a dataset of one publisher, and a model of a stranger."""
    async with gateway_node(tmp_path_factory.mktemp("node"), console=True) as running:
        for name, kind in (("tests/rows@v1", "dataset"), ("tests/tiny@v1", None)):
            await published(running, tmp_path_factory.mktemp("files"), name, kind=kind)
        await published(running, tmp_path_factory.mktemp("files"), "other/tiny@v1", Publisher.generate())
        yield running


async def published(
    node: GatewayNode, folder: Path, name: str, publisher: Publisher | None = None, kind: str | None = None
) -> Release:
    made = model(folder / "files", weights=1_000)
    (made / "README.md").write_text(name)
    return await node.publish(made, name, publisher, kind)


def client(node: GatewayNode) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE)


def entries(page: httpx2.Response) -> dict[str, Any]:
    """The artifacts of a page by their titles."""
    assert page.status_code == 200 and page.headers["Content-Type"] == MEDIA_TYPE
    return {each["dct:title"]: each for each in page.json()["@graph"] if "dct:provenance" in each}


def without_times(page: httpx2.Response) -> list[dict[str, Any]]:
    """The elements of a page without the time of an artifact, which is the present one until the node marks it."""
    return [{key: value for key, value in each.items() if key != "dct:modified"} for each in page.json()["@graph"]]


async def test_every_artifact_is_in_the_catalogue_with_files_that_can_be_fetched(node: GatewayNode) -> None:
    async with client(node) as http:
        page = await http.get(PATH)
        found = entries(page)
        assert list(found) == ["other/tiny@v1", "tests/rows@v1", "tests/tiny@v1"]
        assert "Link" not in page.headers
        addresses = [file["it6:url"]["@id"] for file in found["tests/tiny@v1"]["it6:hasFile"]]
        addresses += [file["dcat:downloadURL"]["@id"] for file in found["tests/rows@v1"]["dcat:distribution"]]
        for address in addresses:
            assert (await http.head(address)).status_code == 200
        shown = await http.get(found["tests/tiny@v1"]["@id"], headers={"Accept": "text/html"})
        assert shown.status_code == 200 and "tests/tiny" in shown.text


async def test_pages_follow_one_another_until_the_last(node: GatewayNode) -> None:
    async with client(node) as http:
        found, following = list[str](), f"{PATH}?limit=1"
        while following:
            page = await http.get(following)
            found += entries(page)
            (view,) = (each for each in page.json()["@graph"] if "hydra:PartialCollectionView" in each["@type"])
            following = page.links.get("next", {}).get("url", "")
            assert view.get("hydra:next", {}).get("@id", "") == following
    assert found == ["other/tiny@v1", "tests/rows@v1", "tests/tiny@v1"]


async def test_what_needs_no_judge_is_listed_as_the_judge_would(
    node: GatewayNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = list[str]()
    snapshot = Catalogue.snapshot

    async def counted(self: Catalogue, name: str, revision: str) -> Snapshot:
        judged.append(name)
        return await snapshot(self, name, revision)

    async def none(*_: object) -> dict[str, Snapshot]:
        return {}

    monkeypatch.setattr(Catalogue, "snapshot", counted)
    async with client(node) as http:
        proven = await http.get(PATH)
        assert judged == []
        monkeypatch.setattr(ListItems, "proven", none)
        assert without_times(await http.get(PATH)) == without_times(proven)
    assert judged == ["other/tiny", "tests/rows", "tests/tiny"]


async def test_a_page_ends_after_many_files(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_PAGE_FILES", 1)
    async with client(node) as http:
        page = await http.get(PATH)
        assert list(entries(page)) == ["other/tiny@v1"]
        assert list(entries(await http.get(page.links["next"]["url"]))) == ["tests/rows@v1"]


async def test_a_page_that_a_portal_has_is_not_sent_again(node: GatewayNode) -> None:
    async with client(node) as http:
        first, second = await http.get(PATH), int(time.time())
        await until(lambda: int(time.time()) > second, what="the next second")
        again = await http.get(PATH, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        wrong = await http.get(f"{PATH}?limit=many")
        assert wrong.status_code == 400


async def test_what_is_not_served_is_counted_and_a_token_reads_its_part(tmp_path: Path) -> None:
    async with gateway_node(tmp_path / "node", public=False) as node:
        await published(node, tmp_path / "a", "tests/tiny@v1")
        await published(node, tmp_path / "b", "tests/two@v1")
        gone = await published(node, tmp_path / "c", "tests/gone@v1")
        node.blob(gone.artifact).unlink()
        tokens = TokenFile(node.home.directory / TOKENS_FILE)
        async with client(node) as http:
            assert (await http.get(PATH)).status_code == 401
            every, _ = tokens.add("portal", ("*",), 0)
            page = await http.get(PATH, headers={"Authorization": f"Bearer {every}"})
            assert list(entries(page)) == ["tests/tiny@v1", "tests/two@v1"]
            assert page.json()["@graph"][0]["rdfs:comment"] == "1 of the names of this page are not served now"
            one, _ = tokens.add("one", ("tests/two",), 0)
            page = await http.get(PATH, headers={"Authorization": f"Bearer {one}"})
            assert list(entries(page)) == ["tests/two@v1"]
