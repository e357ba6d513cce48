"""The index of wheels of a running node: judged, refused and withdrawn as the files that it names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest
import pytest_asyncio
from comity.addons.wheel_index.routes import YANKED
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.rules.signing import sign_content
from comity.trust.statements import Advisory
from support.federation import until
from support.gateway import GatewayNode, gateway_node
from support.publisher import Release, model
from support.waiting import PATIENCE
from support.wheels import write_wheel

pytestmark = pytest.mark.asyncio(loop_scope="module")

INDEX = "/-/wheels/tests/kit/v1/simple/"
JSON = "application/vnd.pypi.simple.v1+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Publishes one kit, which tests must not change."""
    async with gateway_node(tmp_path_factory.mktemp("node")) as running:
        await published(running, tmp_path_factory.mktemp("kit"))
        yield running


async def published(node: GatewayNode, folder: Path, name: str = "tests/kit@v1") -> Release:
    wheels = model(folder / "kit", weights=1_000) / "wheels"
    (folder / "kit" / "README.md").write_text(name)
    write_wheel(wheels, "engine_one", needs=("helper",))
    write_wheel(wheels, "helper", "2.0")
    return await node.publish(folder / "kit", name)


def client(node: GatewayNode) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, follow_redirects=True, timeout=PATIENCE)


async def test_each_wheel_is_found_from_the_list_of_projects_with_its_hash(node: GatewayNode) -> None:
    async with client(node) as http:
        projects = await http.get(INDEX, headers={"Accept": JSON})
        assert (projects.status_code, projects.headers["Content-Type"]) == (200, JSON)
        assert [each["name"] for each in projects.json()["projects"]] == ["engine-one", "helper"]
        page = await http.get(f"{INDEX}Engine.One/", headers={"Accept": JSON})
        (file,) = page.json()["files"]
        assert (file["filename"], file["yanked"]) == ("engine_one-1.0-py3-none-any.whl", False)
        whole = await http.get(urljoin(str(page.url), file["url"]))
        assert len(whole.content) == file["size"] and file["hashes"]["sha256"] == whole.headers["ETag"].strip('"')
        part = await http.get(urljoin(str(page.url), file["url"]), headers={"Range": "bytes=-22"})
        assert (part.status_code, part.content) == (206, whole.content[-22:])


async def test_a_page_has_a_tag_by_which_a_client_asks_again(node: GatewayNode) -> None:
    async with client(node) as http:
        for address in (INDEX, f"{INDEX}helper/"):
            first = await http.get(address, headers={"Accept": "text/html"})
            assert first.headers["Content-Type"].startswith("text/html") and first.headers["Vary"] == "Accept"
            again = await http.get(address, headers={"If-None-Match": first.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
            head = await http.head(address)
            assert (head.status_code, head.headers["ETag"], head.content) == (200, first.headers["ETag"], b"")
            other = await http.get(address, headers={"Accept": JSON, "If-None-Match": first.headers["ETag"]})
            assert (other.status_code, other.headers["Content-Type"]) == (200, JSON)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (f"{INDEX}other/", "EntryNotFound"),
        (f"{INDEX}..%2Fhelper/", "NO-SUCH-ROUTE"),
        ("/-/wheels/tests/kit/v9/simple/", "RevisionNotFound"),
        ("/-/wheels/tests/none/v1/simple/helper/", "RepoNotFound"),
        ("/-/wheels/tests/kit/v1/", "NO-SUCH-ROUTE"),
    ],
)
async def test_what_is_not_there_is_not_found(node: GatewayNode, address: str, code: str) -> None:
    async with client(node) as http:
        answer = await http.get(address)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, code)


async def test_what_the_policy_refuses_has_no_index_in_the_same_words(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[publishers]\naccept = ["' + "0" * 64 + '"]\n[rows]\nrequire = ["key policy"]\n')
    async with gateway_node(tmp_path / "node", policy=str(policy)) as node, client(node) as http:
        await published(node, tmp_path)
        file = await http.get("/tests/kit/resolve/v1/config.json")
        for address in (INDEX, f"{INDEX}helper/"):
            refused = await http.get(address)
            assert (refused.status_code, refused.json()) == (403, file.json())


async def test_the_wheels_of_a_withdrawn_version_are_marked_as_yanked(node: GatewayNode, tmp_path: Path) -> None:
    release = await published(node, tmp_path, "tests/old@v1")
    yank = Advisory(node.publisher.inception.author, release.artifact, "yank", "low", "")
    async with node.home.client() as submitting:
        await submitting.submit([sign_content(yank, node.publisher.signer).line], [])
    async with client(node) as http:

        async def yanked() -> bool:
            page = await http.get("/-/wheels/tests/old/v1/simple/helper/", headers={"Accept": JSON})
            return bool(page.json()["files"][0]["yanked"] == YANKED)

        await until(yanked, what="the page to say that the version is withdrawn")


async def test_a_private_node_asks_for_a_token_and_the_right_one(tmp_path: Path) -> None:
    async with gateway_node(tmp_path / "node", public=False) as node, client(node) as http:
        await published(node, tmp_path)
        tokens = TokenFile(node.home.directory / TOKENS_FILE)
        own, _ = tokens.add("reader", ("tests/kit",), 0)
        other, _ = tokens.add("other", ("tests/other",), 0)
        for address in (INDEX, f"{INDEX}helper/"):
            asked = await http.get(address)
            assert (asked.status_code, asked.headers["WWW-Authenticate"]) == (401, 'Basic realm="comity"')
            assert (await http.get(address, auth=("any", other))).status_code == 403
            assert (await http.get(address, auth=("any", own))).status_code == 200
            assert own not in (await http.get(address, auth=("any", own))).text
