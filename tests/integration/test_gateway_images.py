"""The image of an artifact at a running node: byte for byte, and refused as its other files are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from support.gateway import GatewayNode, gateway_node
from support.oci_layouts import Layout, small_layout
from support.publisher import model
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGE = "/v2/tests/kit/image"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Publishes four versions: with an image, with one for each platform, with one that lacks a layer, without one."""
    folder = tmp_path_factory.mktemp("kits")
    broken = small_layout("riscv64")
    digest = json.loads(broken.files["index.json"])["manifests"][0]["digest"].removeprefix("sha256:")
    layer = json.loads(broken.files[f"blobs/sha256/{digest}"])["layers"][0]["digest"].removeprefix("sha256:")
    del broken.files[f"blobs/sha256/{layer}"]
    versions = {"v1": small_layout(), "v2": small_layout("amd64", "arm64"), "v3": broken, "v4": None}
    async with gateway_node(tmp_path_factory.mktemp("node")) as running:
        for version, layout in versions.items():
            await running.publish(kit(folder / version, layout), f"tests/kit@{version}")
        yield running


def kit(folder: Path, layout: Layout | None) -> Path:
    model(folder, weights=1_000)
    (folder / "README.md").write_text(folder.name)
    if layout is not None:
        layout.write(folder)
    return folder


def client(node: GatewayNode) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, follow_redirects=True, timeout=PATIENCE)


async def test_the_image_of_a_version_is_served_byte_for_byte(node: GatewayNode) -> None:
    layout = small_layout()
    (described,) = json.loads(layout.files["index.json"])["manifests"]
    async with client(node) as http:
        answer = await http.get(f"{IMAGE}/manifests/v1")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, MANIFEST)
        assert answer.headers["Docker-Content-Digest"] == described["digest"]
        by_digest = await http.get(f"{IMAGE}/manifests/{described['digest']}")
        head = await http.head(f"{IMAGE}/manifests/v1")
        assert by_digest.content == answer.content == layout.files[f"blobs/sha256/{described['digest'][7:]}"]
        assert (head.status_code, head.content) == (200, b"")
        document = answer.json()
        for item in (document["config"], *document["layers"]):
            blob = await http.get(f"{IMAGE}/blobs/{item['digest']}")
            assert blob.content == layout.files[f"blobs/sha256/{item['digest'][7:]}"]
            part = await http.get(f"{IMAGE}/blobs/{item['digest']}", headers={"Range": "bytes=2-4"})
            assert (part.status_code, part.content) == (206, blob.content[2:5])


async def test_a_version_with_several_images_is_their_index(node: GatewayNode) -> None:
    async with client(node) as http:
        answer = await http.get(f"{IMAGE}/manifests/v2")
        assert answer.headers["Content-Type"] == "application/vnd.oci.image.index.v1+json"
        for item in answer.json()["manifests"]:
            assert (await http.get(f"{IMAGE}/manifests/{item['digest']}")).status_code == 200


async def test_tags_are_the_versions_that_have_an_image(node: GatewayNode) -> None:
    async with client(node) as http:
        listed = await http.get(f"{IMAGE}/tags/list")
        assert listed.json() == {"name": "tests/kit/image", "tags": ["v1", "v2", "v3"]}
        first = await http.get(f"{IMAGE}/tags/list", params={"n": "2"})
        assert first.json()["tags"] == ["v1"] and 'rel="next"' in first.headers["Link"]  # beside `latest`, of no image
        rest = await http.get(first.links["next"]["url"])
        assert rest.json()["tags"] == ["v2", "v3"]


@pytest.mark.parametrize(
    ("address", "code", "why"),
    [
        ("manifests/v3", "MANIFEST_UNKNOWN", "it has no file image/blobs/sha256/"),
        ("manifests/v4", "MANIFEST_UNKNOWN", "it has no file image/index.json"),
        ("manifests/v9", "MANIFEST_UNKNOWN", ""),
        (f"manifests/sha256:{'0' * 64}", "MANIFEST_UNKNOWN", "no such manifest"),
        (f"blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN", "no such blob"),
    ],
)
async def test_what_is_not_whole_or_not_there_is_refused(node: GatewayNode, address: str, code: str, why: str) -> None:
    async with client(node) as http:
        answer = await http.get(f"{IMAGE}/{address}")
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["code"], why in error["message"]) == (404, code, True), answer.text


async def test_other_files_of_the_artifact_and_of_a_broken_image_are_no_blobs_of_its_image(node: GatewayNode) -> None:
    async with client(node) as http:
        files = (await http.get("/api/models/tests/kit/revision/v3?blobs=true")).json()["siblings"]
        whole = {item["digest"][7:] for version in ("v1", "v2") for item in await blobs(http, version)}
        others = {file["lfs"]["sha256"] for file in files} - whole
        assert len(others) >= 4
        for digest in others:
            assert (await http.get(f"{IMAGE}/blobs/sha256:{digest}")).status_code == 404
            assert (await http.get(f"/v2/tests/kit/blobs/sha256:{digest}")).status_code == 200


async def blobs(http: httpx2.AsyncClient, version: str) -> list[dict[str, str]]:
    top = (await http.get(f"{IMAGE}/manifests/{version}")).json()
    manifests = top.get("manifests", [])
    found = [(await http.get(f"{IMAGE}/manifests/{item['digest']}")).json() for item in manifests] or [top]
    return [*manifests, *(item for each in found for item in (each["config"], *each["layers"]))]


async def test_a_private_node_and_a_policy_refuse_an_image_as_the_artifact(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[publishers]\naccept = ["' + "0" * 64 + '"]\n[rows]\nrequire = ["key policy"]\n')
    async with gateway_node(tmp_path / "node", public=False, policy=str(policy)) as own, client(own) as http:
        await own.publish(kit(tmp_path / "kit", small_layout()), "tests/kit@v1")
        asked = await http.get(f"{IMAGE}/manifests/v1")
        assert (asked.status_code, asked.headers["WWW-Authenticate"]) == (401, 'Basic realm="comity"')
        token, _ = TokenFile(own.home.directory / TOKENS_FILE).add("reader", ("tests/kit",), 0)
        refused = await http.get(f"{IMAGE}/manifests/v1", auth=("me", token))
        artifact = await http.get("/v2/tests/kit/manifests/v1", auth=("me", token), headers={"Accept": MANIFEST})
        assert (refused.status_code, refused.json()) == (403, artifact.json())
