"""What the OCI distribution specification requires of a registry that is pulled from and looked into (1.1: pull and
content discovery), asked of a node: by the suite of the specification, and here, requirement by requirement.

The suite is a program in Go that no package has: `docs/clients/oci.md` says how to build it. The requirements here are
those that it checks of a registry to which nothing is pushed, and those of the text that it does not check.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import pytest_asyncio
from comity.trust.frozen import frozen
from support.federation import until
from support.gateway import GatewayNode, gateway_node
from support.publisher import model
from support.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SUITE = "COMITY_TESTS_OCI_CONFORMANCE"
"""Names the program of the suite."""
NAME = "tests/tiny"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = {"Accept": f"{INDEX}, {IMAGE}"}
SECONDS = 120
ABSENT = f"sha256:{hashlib.sha256(b'absent').hexdigest()}"


@frozen
class Content:
    """What the repository has: its manifest, the digests of its blobs with their sizes, which of them is the
    configuration, and what kinds refer to it."""

    manifest: str
    config: str
    blobs: dict[str, int]
    kinds: tuple[str, ...]


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[pytest.param("127.0.0.1:0", id="file server"), pytest.param("", id="inline")],
)
async def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Has two versions; tests must not change it. Large blobs are redirected to its file server, or sent by itself."""
    async with gateway_node(tmp_path_factory.mktemp("node"), files=request.param) as running:
        for version in ("v1", "v2"):
            folder = model(tmp_path_factory.mktemp("files") / version, weights=400_000)
            (folder / "README.md").write_text(version)
            await running.publish(folder, f"{NAME}@{version}")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def content(node: GatewayNode) -> Content:
    async with client(node) as http:
        answer = await http.get(f"/v2/{NAME}/manifests/v1", headers=ACCEPT)
        document, digest = answer.json(), digest_of(answer.content)

        async def kinds() -> list[str]:
            listed = (await http.get(f"/v2/{NAME}/referrers/{digest}")).json()["manifests"]
            return [each["artifactType"] for each in listed]

        async def several() -> bool:
            return len(set(await kinds())) > 1

        await until(several, what="referrers of two kinds")
        blobs = {each["digest"]: each["size"] for each in (document["config"], *document["layers"])}
        return Content(digest, document["config"]["digest"], blobs, tuple(await kinds()))


def client(node: GatewayNode) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, follow_redirects=True, timeout=PATIENCE)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_the_suite_of_the_specification_passes(node: GatewayNode, content: Content, tmp_path: Path) -> None:
    program = os.environ.get(SUITE)
    if not program:
        pytest.skip(f"no package has the suite; unlock: build it as docs/clients/oci.md says, and set {SUITE}")
    settings = {
        "OCI_REGISTRY": urlsplit(node.url).netloc,
        "OCI_TLS": "disabled",
        "OCI_REPO1": NAME,
        **{f"OCI_API_{api}": "false" for api in ("PUSH", "BLOBS_DELETE", "MANIFESTS_DELETE", "TAGS_DELETE")},
        "OCI_RO_DATA_TAGS": "v1 v2 latest",
        "OCI_RO_DATA_MANIFESTS": content.manifest,
        "OCI_RO_DATA_BLOBS": " ".join(content.blobs),
        "OCI_RO_DATA_REFERRERS": content.manifest,
        "OCI_RESULTS_DIR": str(tmp_path),
    }
    pipe = asyncio.subprocess.PIPE
    ran = await asyncio.create_subprocess_exec(
        program, env={**os.environ, **settings}, cwd=tmp_path, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(ran.communicate(), SECONDS)
    finally:
        if ran.returncode is None:
            ran.kill()
    said = output.decode()
    counts = {what: int(count) for what, count in re.findall(r"^  (\w+)\.+: +([0-9]+)$", said, re.MULTILINE)}
    assert "OCI Conformance Result: Pass" in said, said
    # Of pushing and deleting, which are disabled, none is counted as passed.
    assert counts["FAIL"] == counts["Error"] == counts["Skip"] == 0
    assert counts["Pass"] >= 20


async def test_a_registry_answers_at_its_root(node: GatewayNode) -> None:
    """end-1"""
    async with client(node) as http:
        assert (await http.get("/v2/")).status_code == 200


async def test_manifests_are_pulled_and_asked_for_by_tag_and_digest(node: GatewayNode, content: Content) -> None:
    """end-3"""
    async with client(node) as http:
        for reference in ("v1", content.manifest):
            address = f"/v2/{NAME}/manifests/{reference}"
            got, head = await http.get(address, headers=ACCEPT), await http.head(address, headers=ACCEPT)
            assert digest_of(got.content) == content.manifest and got.json()["mediaType"] == IMAGE
            for answer in (got, head):
                assert (answer.status_code, answer.headers["Content-Type"]) == (200, IMAGE)
                assert answer.headers["Docker-Content-Digest"] == content.manifest
                assert answer.headers["Content-Length"] == str(len(got.content))
            assert head.content == b""


async def test_blobs_are_pulled_and_asked_for_in_whole_and_in_part(node: GatewayNode, content: Content) -> None:
    """end-2"""
    async with client(node) as http:
        for digest, size in content.blobs.items():
            address = f"/v2/{NAME}/blobs/{digest}"
            got, head = await http.get(address), await http.head(address)
            assert (got.status_code, digest_of(got.content)) == (200, digest)
            assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(size))
            for answer in (head, *got.history, got):
                assert answer.headers["Docker-Content-Digest"] == digest
            if size > 2 and digest != content.config:  # documents that the gateway makes are sent whole
                part = await http.get(address, headers={"Range": f"bytes=1-{size - 2}"})
                assert (part.status_code, part.content) == (206, got.content[1:-1])
                assert part.headers["Content-Range"] == f"bytes 1-{size - 2}/{size}"
                beyond = await http.get(address, headers={"Range": f"bytes={size}-"})
                assert beyond.status_code == 416


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{NAME}/manifests/absent", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        (f"{NAME}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        (f"{NAME}/referrers/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("tests/absent/manifests/v1", 404, "NAME_UNKNOWN"),
        ("tests/absent/tags/list", 404, "NAME_UNKNOWN"),
    ],
)
async def test_what_is_not_there_is_refused_by_its_code(node: GatewayNode, path: str, status: int, code: str) -> None:
    async with client(node) as http:
        got, head = await http.get(f"/v2/{path}", headers=ACCEPT), await http.head(f"/v2/{path}", headers=ACCEPT)
        assert (got.status_code, got.json()["errors"][0]["code"]) == (status, code)
        assert (head.status_code, head.content) == (status, b"")


async def test_tags_are_listed_in_order_whole_and_in_pages(node: GatewayNode) -> None:
    """end-8a, end-8b"""
    address = f"/v2/{NAME}/tags/list"
    async with client(node) as http:
        whole = await http.get(address)
        assert whole.json() == {"name": NAME, "tags": ["latest", "v1", "v2"]}
        none = await http.get(f"{address}?n=0")
        assert (none.json()["tags"], "Link" in none.headers) == ([], False)
        assert (await http.get(f"{address}?last=v1")).json()["tags"] == ["v2"]
        assert (await http.get(f"{address}?n=5&last=latest")).json()["tags"] == ["v1", "v2"]
        first = await http.get(f"{address}?n=2")
        assert first.json()["tags"] == ["latest", "v1"]
        rest = await http.get(first.links["next"]["url"])
        assert (rest.json()["tags"], "Link" in rest.headers) == (["v2"], False)


async def test_referrers_are_an_index_that_a_type_filters(node: GatewayNode, content: Content) -> None:
    """end-12a, end-12b"""
    address = f"/v2/{NAME}/referrers/{content.manifest}"
    async with client(node) as http:
        whole = await http.get(address)
        assert (whole.status_code, whole.headers["Content-Type"]) == (200, INDEX)
        assert "OCI-Filters-Applied" not in whole.headers
        for each in whole.json()["manifests"]:
            got = await http.get(f"/v2/{NAME}/manifests/{each['digest']}", headers=ACCEPT)
            document = got.json()
            assert (digest_of(got.content), len(got.content)) == (each["digest"], each["size"])
            assert document["subject"]["digest"] == content.manifest
            assert each["artifactType"] == document["artifactType"]
            assert each["annotations"] == document["annotations"]
        for kind in set(content.kinds):
            some = await http.get(address, params={"artifactType": kind})
            assert some.headers["OCI-Filters-Applied"] == "artifactType"
            assert {each["artifactType"] for each in some.json()["manifests"]} == {kind}
        nothing = await http.get(f"/v2/{NAME}/referrers/{ABSENT}")
        assert (nothing.status_code, nothing.json()["manifests"]) == (200, [])
