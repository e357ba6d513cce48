"""Real registry clients with a node: skopeo and oras pull a model, list its tags and its referrers, and refuse bytes
that do not match the digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from comity.verifier import hash_file
from support.gateway import GatewayNode, gateway_node
from support.lying_proxy import Answer, lying_proxy
from support.publisher import Release, model
from support.tools import needs

NAME = "tests/tiny"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    async with gateway_node(tmp_path) as running:
        yield running


@pytest.fixture
async def ready(node: GatewayNode, tmp_path: Path) -> Release:
    folder = model(tmp_path / "model", weights=3_000_000)
    (folder / "nested").mkdir()
    (folder / "nested" / "config.json").write_text("{}\n")
    (folder / "empty.txt").touch()
    return await node.publish(folder, f"{NAME}@v1")


async def run(*command: str, works: bool = True) -> str:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode == 0) is works, done.stdout + done.stderr
    return done.stdout if works else done.stderr + done.stdout


def host(url: str) -> str:
    return urlsplit(url).netloc


def digests(folder: Path) -> set[str]:
    return {hash_file(path, lambda _: None)[1] for path in folder.rglob("*") if path.is_file()}


def files_of(release: Release) -> set[str]:
    return {str(entry.sha256) for entry in release.ingested.manifest.files}


async def test_skopeo_inspects_lists_and_copies(node: GatewayNode, ready: Release, tmp_path: Path) -> None:
    skopeo, source = needs("skopeo", unlock="apt-get install skopeo"), f"docker://{host(node.url)}/{NAME}"
    tags = await run(skopeo, "list-tags", "--tls-verify=false", source)
    assert json.loads(tags)["Tags"] == ["latest", "v1"]
    raw = await run(skopeo, "inspect", "--tls-verify=false", "--raw", f"{source}:v1")
    digest = hashlib.sha256(raw.encode()).hexdigest()
    assert json.loads(raw)["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    for number, reference in enumerate((":v1", f"@sha256:{digest}")):
        into = tmp_path / f"copy-{number}"
        await run(skopeo, "copy", "--src-tls-verify=false", f"{source}{reference}", f"dir:{into}")
        assert (into / "manifest.json").read_text() == raw
        assert files_of(ready) <= digests(into)
    layout = tmp_path / "layout"
    await run(skopeo, "copy", "--src-tls-verify=false", f"{source}:v1", f"oci:{layout}:v1")
    assert files_of(ready) <= digests(layout)


async def test_oras_pulls_the_files_under_their_names_and_discovers_statements(
    node: GatewayNode, ready: Release, tmp_path: Path
) -> None:
    oras, source, into = (
        needs("oras", unlock="apt-get install oras"),
        f"{host(node.url)}/{NAME}:v1",
        tmp_path / "pulled",
    )
    await run(oras, "pull", "--plain-http", "--output", str(into), source)
    assert {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()} == set(
        ready.ingested.files
    )
    for path, original in ready.ingested.files.items():
        assert (into / path).read_bytes() == original.read_bytes()
    found = await run(oras, "discover", "--plain-http", "--format", "json", source)
    kinds = {each["artifactType"] for each in json.loads(found)["manifests"]}
    assert "application/vnd.in-toto+json" in kinds
    tags = await run(oras, "repo", "tags", "--plain-http", f"{host(node.url)}/{NAME}")
    assert tags.split() == ["latest", "v1"]


@pytest.mark.parametrize("client", ["skopeo", "oras"])
async def test_a_blob_changed_in_transit_is_refused_by_its_digest(
    node: GatewayNode, ready: Release, tmp_path: Path, client: str
) -> None:
    program = needs(client, unlock=f"apt-get install {client}")
    changed: list[str] = []

    def flip(answer: Answer) -> Answer:
        if not answer.path.endswith(ready.ingested.manifest.by_path["config.json"].sha256) or not answer.body:
            return answer
        changed.append(answer.path)
        return replace(answer, body=bytes([answer.body[0] ^ 1]) + answer.body[1:])

    with lying_proxy(node.url, flip) as address:
        source = f"{host(address)}/{NAME}:v1"
        if client == "skopeo":
            command: tuple[str, ...] = (
                program,
                "copy",
                "--src-tls-verify=false",
                f"docker://{source}",
                f"dir:{tmp_path / 'into'}",
            )
        else:
            # Two failures at once make oras 1.2 panic, which is a refusal without a reason.
            command = (
                program,
                "pull",
                "--plain-http",
                "--concurrency",
                "1",
                "--output",
                str(tmp_path / "into"),
                source,
            )
        said = await run(*command, works=False)
    assert changed, said
    assert "digest" in said.lower()
