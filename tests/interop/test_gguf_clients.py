"""The requests of llama.cpp and Ollama, in their order, with the headers that each requires.

Neither program is run here; llama.cpp's downloader is, in test_llama_cpp.py. Sources: llama.cpp common/hf-cache.cpp and
download.cpp, and Ollama server/download.go and images.go, as read for the hub protocol notes of the design;
`hf-cache.cpp` is what `-hf` uses since late 2025.
"""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import urlsplit

import httpx2
import pytest
from support.client_repository import CHILD, ServedRepository
from support.waiting import PATIENCE

PART = 1_000_000
"""Bytes of one of the parts that Ollama fetches at once."""


@pytest.fixture(params=("inline_node", "node"))
def served(request: pytest.FixtureRequest) -> ServedRepository:
    found: ServedRepository = request.getfixturevalue(request.param)
    return found


async def llama_cpp(endpoint: str, repository: str, wanted: str) -> bytes:
    """`llama-cli -hf repository:wanted`: refs, tree, HEAD, then GET in two runs of which the second resumes."""
    async with httpx2.AsyncClient(
        base_url=endpoint, headers={"User-Agent": "llama-cpp/b7000"}, timeout=PATIENCE
    ) as http:
        refs = (await http.get(f"/api/models/{repository}/refs")).json()
        commit = next(branch["targetCommit"] for branch in refs["branches"] if branch["name"] == "main")
        assert re.fullmatch("[0-9a-f]{40}", commit)
        tree = (await http.get(f"/api/models/{repository}/tree/{commit}?recursive=true")).json()  # its first page alone
        (entry,) = [
            item for item in tree if item["type"] == "file" and wanted.lower() in item["path"].lower() and item["size"]
        ]
        url = f"/{repository}/resolve/{commit}/{entry['path']}"
        head = await http.head(url, follow_redirects=True)
        assert head.status_code == 200
        assert head.headers["Accept-Ranges"] == "bytes"
        assert int(head.headers["Content-Length"]) == entry["size"]
        assert head.headers["ETag"].strip('"') == entry["lfs"]["oid"]
        async with http.stream("GET", url, follow_redirects=True) as first:
            begun = await anext(first.aiter_bytes(500_000))
        resumed = await http.get(url, headers={"Range": f"bytes={len(begun)}-"}, follow_redirects=True)
        assert resumed.status_code == 206  # a 200 here is an error to llama.cpp
        return begun + resumed.content


async def ollama(endpoint: str, repository: str, tag: str) -> dict[str, bytes]:
    """`ollama pull host/repository:tag`: the manifest, then each layer by HEAD, redirect, and parts; all are hashed."""
    async with httpx2.AsyncClient(base_url=endpoint, timeout=PATIENCE) as http:
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        answer = await http.get(f"/v2/{repository}/manifests/{tag}", headers=accept)
        answer.raise_for_status()
        manifest, layers = json.loads(answer.content), {}
        assert manifest["schemaVersion"] == 2
        for layer in (*manifest["layers"], manifest["config"]):
            url = f"/v2/{repository}/blobs/{layer['digest']}"
            head = await http.head(url)
            assert (head.status_code, int(head.headers["Content-Length"])) == (200, layer["size"])
            direct = await _direct(http, url)
            parts = []
            for start in range(0, layer["size"], PART):
                end = min(start + PART, layer["size"]) - 1
                part = await http.get(direct, headers={"Range": f"bytes={start}-{end}"})
                assert part.status_code in (200, 206)
                parts.append(part.content)
            data = b"".join(parts)
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer["digest"]
            layers[layer["mediaType"]] = data
        return layers


async def _direct(http: httpx2.AsyncClient, url: str) -> str:
    """Redirects are followed on this host; the first to another one is the address of all parts."""
    async with http.stream("GET", url) as answer:
        if not answer.is_redirect:
            return url
        to = answer.headers["Location"]
        assert urlsplit(to).scheme
        return to


@pytest.mark.parametrize("wanted", ("Q4_K_M", "Q8_0"))
async def test_llama_cpp_fetches_and_resumes(served: ServedRepository, wanted: str) -> None:
    found = await llama_cpp(served.url, CHILD, wanted)
    assert found == served.repository.read(f"tiny-{wanted}.gguf")


@pytest.mark.parametrize(
    ("tag", "file"), (("latest", "Q4_K_M"), ("q8_0", "Q8_0"), ("v1", "Q4_K_M"), ("Q4_K_M", "Q4_K_M"))
)
async def test_ollama_pulls_the_file_of_its_tag(served: ServedRepository, tag: str, file: str) -> None:
    layers = await ollama(served.url, CHILD, tag)
    assert layers["application/vnd.ollama.image.model"] == served.repository.read(f"tiny-{file}.gguf")
    assert layers["application/vnd.ollama.image.projector"] == served.repository.read("mmproj-F16.gguf")
    config = json.loads(layers["application/vnd.docker.container.image.v1+json"])
    assert (config["model_format"], config["file_type"]) == ("gguf", file)


async def test_older_llama_cpp_reads_the_files_name_in_the_manifest(served: ServedRepository) -> None:
    async with httpx2.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        manifest = (await http.get(f"/v2/{CHILD}/manifests/latest")).json()
    assert manifest["ggufFile"]["rfilename"] == "tiny-Q4_K_M.gguf"
    assert manifest["mmprojFile"]["rfilename"] == "mmproj-F16.gguf"


async def test_missing_tags_and_parts_of_a_split_model_are_not_found(served: ServedRepository) -> None:
    async with httpx2.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        for url in (
            f"/v2/{CHILD}/manifests/Q6_K",
            f"/v2/{CHILD}/manifests/v9",
            f"/v2/{CHILD}/blobs/sha256:{'0' * 64}",
            "/v2/nobody/nothing/manifests/latest",
        ):
            answer = await http.get(url)
            assert answer.status_code == 404, url
            assert answer.headers["X-Error-Code"]
