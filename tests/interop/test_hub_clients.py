"""Unmodified Hugging Face clients against a running node."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog.testing
from comity.content.gateway_tokens import TokenFile
from comity.rules.git_ids import commit_id
from comity.rules.signing import sign_content
from comity.trust.statements import Advisory
from support.careless_hub import careless_hub
from support.certificates import crafted
from support.gateway import gateway_node, looking_at_each_request
from support.publisher import Release, model
from support.slow_links import SlowRelay
from support.stock import Stock
from support.waiting import PATIENCE

REPOSITORY = "tests/model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = model(tmp_path / "model", weights=11_000_000)
    (made / "sub").mkdir()
    (made / "sub" / "note.txt").write_text("Nobody can take it away.\n")
    return made


def hashes(ready: Release) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in ready.ingested.manifest.files}


def request(ready: Release, **more: Any) -> dict[str, Any]:
    return {"repository": REPOSITORY, "revision": "v1", "file": "weights.bin", **more}


async def test_a_stock_client_reads_all_metadata_of_a_hub(tmp_path: Path, folder: Path) -> None:
    async with gateway_node(tmp_path) as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        steps = ["info", "dataset_info", "files", "tree", "folder", "paths_info", "refs", "commits", "search", "exists"]
        said = request(ready, folder="sub", paths=["weights.bin", "sub"], search="MODEL")
        found = await Stock(node.url, tmp_path / "hf").run(steps, **said)
    commit, files = commit_id(ready.ingested.manifest), hashes(ready)
    info = found["info"]
    assert (info["id"], info["sha"], info["private"], info["gated"]) == (REPOSITORY, commit, False, False)
    assert info["files"] == {entry.path: entry.size for entry in ready.ingested.manifest.files}
    assert info["sha256"] == list(files.values())
    assert found["dataset_info"] == commit
    assert sorted(found["files"]) == sorted(files)
    assert found["tree"] == sorted([["RepoFolder", "sub"], *(["RepoFile", path] for path in files)], key=lambda e: e[1])
    assert found["folder"] == ["sub/note.txt"]
    assert sorted(found["paths_info"]) == ["sub", "weights.bin"]
    assert found["refs"] == {"branches": {"main": commit}, "tags": {"v1": commit}}
    assert found["commits"] == [commit]
    assert found["search"] == [REPOSITORY]
    assert found["exists"] == [True, False, True, False, True, False]


async def test_a_stock_client_downloads_bit_for_bit(tmp_path: Path, folder: Path) -> None:
    async with gateway_node(tmp_path, files="") as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        steps = ["download", "snapshot", "local_dir", "command", "filesystem", "snapshot_offline", "cache_verify"]
        found = await Stock(node.url, tmp_path / "hf").run(steps, **request(ready))
    files, weights = hashes(ready), (folder / "weights.bin").read_bytes()
    digest = files["weights.bin"]
    assert found["download"] == {"sha256": digest, "blob": digest}
    assert found["snapshot"] == {"commit": commit_id(ready.ingested.manifest), "files": files}
    assert found["local_dir"] == files
    assert found["command"] == {"files": files}
    assert found["snapshot_offline"] == found["snapshot"]["commit"]
    assert found["cache_verify"] is True
    listed = [f"{REPOSITORY}@v1/{name}" for name in ("config.json", "empty.txt", "sub", "weights.bin")]
    assert found["filesystem"]["ls"] == listed
    assert found["filesystem"]["middle"] == weights[1000:1050].hex()
    assert found["filesystem"]["cat"] == hashlib.sha256(weights[10:300_000]).hexdigest()


async def test_large_files_come_from_the_blob_server_where_there_is_one(tmp_path: Path, folder: Path) -> None:
    async with gateway_node(tmp_path, files="127.0.0.1:0") as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        with structlog.testing.capture_logs() as events:
            found = await Stock(node.url, tmp_path / "hf").run(["snapshot", "filesystem"], **request(ready))
    assert found["snapshot"]["files"] == hashes(ready)
    assert found["filesystem"]["middle"] == (folder / "weights.bin").read_bytes()[1000:1050].hex()
    assert max(event["sent"] for event in events if event["event"] == "blob served") == 11_000_000


async def test_the_same_over_tls_under_a_certificate_that_the_user_trusts(tmp_path: Path, folder: Path) -> None:
    identity = crafted("localhost", ca=True)
    key, certificate = identity.pem()
    (tmp_path / "gateway.key").write_bytes(key)
    (tmp_path / "gateway.crt").write_bytes(certificate)
    settings: dict[str, Any] = {"certificate": str(tmp_path / "gateway.crt"), "key": str(tmp_path / "gateway.key")}
    async with gateway_node(tmp_path, **settings) as node:
        assert node.url.startswith("https://")
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        endpoint = node.url.replace("127.0.0.1", "localhost")
        stock = Stock(endpoint, tmp_path / "hf", ca=tmp_path / "gateway.crt")
        found = await stock.run(["info", "snapshot", "filesystem"], **request(ready))
        distrustful = await Stock(endpoint, tmp_path / "other").run(["no_repository"], **request(ready))
    assert found["info"]["sha"] == commit_id(ready.ingested.manifest)
    assert found["snapshot"]["files"] == hashes(ready)
    assert "certificate" in distrustful["no_repository"]["said"].lower()


async def test_a_stock_client_sends_the_nodes_token_and_gets_an_error_without_one(tmp_path: Path, folder: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        secret, _ = TokenFile(node.home.directory / "tokens.json").add("ci", ("tests/*",), 0)
        known = await Stock(node.url, tmp_path / "known", token=secret).run(["whoami", "snapshot"], **request(ready))
        nobody = await Stock(node.url, tmp_path / "nobody").run(["info", "download"], **request(ready))
    assert known["whoami"] == "ci"
    assert known["snapshot"]["files"] == hashes(ready)
    assert nobody["info"]["raised"] == "RepositoryNotFoundError"
    assert "token" in nobody["info"]["said"]
    assert "raised" in nobody["download"]


async def test_a_cut_download_is_resumed_where_it_broke(tmp_path: Path, folder: Path) -> None:
    async with gateway_node(tmp_path, files="") as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        relay = SlowRelay(node.url.removeprefix("http://"))
        relay.cut_after = 6_000_000
        try:
            found = await Stock(f"http://{relay.address}", tmp_path / "hf").run(["download"], **request(ready))
        finally:
            relay.close()
    assert relay.cuts == 1
    assert found["download"]["sha256"] == hashes(ready)["weights.bin"]


async def test_missing_things_raise_the_clients_own_errors(tmp_path: Path, folder: Path) -> None:
    async with gateway_node(tmp_path) as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        steps = ["no_repository", "no_revision", "no_file", "whoami"]
        found = await Stock(node.url, tmp_path / "hf").run(steps, **request(ready))
    assert found["no_repository"]["raised"] == "RepositoryNotFoundError"
    assert found["no_revision"]["raised"] == "RevisionNotFoundError"
    assert found["no_file"]["raised"] in ("RemoteEntryNotFoundError", "EntryNotFoundError")
    assert "raised" in found["whoami"]


async def test_a_warning_reaches_the_clients_user_once_a_repository(tmp_path: Path, folder: Path) -> None:
    with looking_at_each_request():
        async with gateway_node(tmp_path) as node:
            ready = await node.publish(folder, f"{REPOSITORY}@v1")
            author = node.publisher.inception.author
            said = Advisory(author, ready.artifact, "vulnerability", "high", "pickle inside \u2013 do not load")
            async with node.home.client() as client:
                await client.submit([sign_content(said, node.publisher.signer).line])
            found = await Stock(node.url, tmp_path / "hf").run(["info", "files", "download"], **request(ready))
    assert found["stderr"].count("tests/model: vulnerability (high): pickle inside") == 1
    assert found["download"]["sha256"] == hashes(ready)["weights.bin"]


@pytest.mark.parametrize("files", ("", "127.0.0.1:0"), ids=("inline", "file server"))
async def test_a_flipped_bit_of_a_careless_server_is_accepted_and_ours_is_never_sent(
    tmp_path: Path, files: str
) -> None:
    """The reason for this gateway: the stock client compares nothing but lengths."""
    folder = model(tmp_path / "model", weights=9_000_000)
    async with gateway_node(tmp_path, files=files) as node:
        ready = await node.publish(folder, f"{REPOSITORY}@v1")
        right = hashes(ready)["weights.bin"]
        with careless_hub(REPOSITORY, folder) as endpoint:
            flip(folder / "weights.bin", 5_000_000)
            careless = await Stock(endpoint, tmp_path / "careless").run(["download"], **request(ready))
        assert careless["download"]["blob"] == right
        assert careless["download"]["sha256"] != right
        node.damage(right, 5_000_000)
        ours = await Stock(node.url, tmp_path / "ours").run(["download"], **request(ready))
        assert "raised" in ours["download"]
        assert not [path for path in (tmp_path / "ours").rglob("*") if path.name == right]
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:
            again = await client.head(f"/{REPOSITORY}/resolve/v1/weights.bin")
        assert (again.status_code, again.headers["X-Error-Code"]) == (503, "NOT-HERE")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
