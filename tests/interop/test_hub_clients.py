"""Unmodified Hugging Face clients against a running node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.content.gateway_tokens import TokenFile
from comity.rules.git_ids import commit_id
from comity.rules.signing import sign_content
from comity.trust.statements import Advisory
from support.careless_hub import careless_hub
from support.certificates import crafted
from support.client_repository import SHARD, ServedRepository
from support.gateway import gateway_node, looking_at_each_request
from support.publisher import model
from support.slow_links import SlowRelay
from support.stock import Stock
from support.stock_checks import ASKED, FAILING, LOADING, READING, check_failing, check_loading, check_reading
from support.waiting import PATIENCE

SMALL: dict[str, Any] = {"repository": "tests/model", "revision": "v1", "file": "weights.bin"}


async def test_a_stock_client_reads_all_metadata_of_a_hub_and_large_files_from_its_file_server(
    tmp_path: Path, node: ServedRepository
) -> None:
    before, size = len(node.node.events), node.repository.child.ingested.manifest.by_path[SHARD].size
    found = await Stock(node.url, tmp_path / "hf").run((*READING, "snapshot"), **ASKED)
    check_reading(found, node.repository)
    assert found["snapshot"]["files"] == node.repository.hashes
    assert size in [event["sent"] for event in node.node.events[before:] if event["event"] == "blob served"]


async def test_a_stock_client_downloads_bit_for_bit(tmp_path: Path, inline_node: ServedRepository) -> None:
    repository, digest = inline_node.repository, inline_node.repository.hashes[SHARD]
    found = await Stock(inline_node.url, tmp_path / "hf").run((*LOADING, "snapshot_offline"), **ASKED)
    check_loading(found, repository)
    assert found["download"] == {"sha256": digest, "blob": digest}
    assert found["snapshot_offline"] == repository.commit
    assert found["cache_verify"] is True


@pytest.mark.slow
async def test_the_same_over_tls_under_a_certificate_that_the_user_trusts(tmp_path: Path) -> None:
    identity = crafted("localhost", ca=True)
    key, certificate = identity.pem()
    (tmp_path / "gateway.key").write_bytes(key)
    (tmp_path / "gateway.crt").write_bytes(certificate)
    settings: dict[str, Any] = {"certificate": str(tmp_path / "gateway.crt"), "key": str(tmp_path / "gateway.key")}
    async with gateway_node(tmp_path, **settings) as node:
        assert node.url.startswith("https://")
        ready = await node.publish(model(tmp_path / "model"), "tests/model@v1")
        endpoint = node.url.replace("127.0.0.1", "localhost")
        stock = Stock(endpoint, tmp_path / "hf", ca=tmp_path / "gateway.crt")
        found = await stock.run(["info", "snapshot", "filesystem"], **SMALL)
        distrustful = await Stock(endpoint, tmp_path / "other").run(["no_repository"], **SMALL)
    assert found["info"]["sha"] == commit_id(ready.ingested.manifest)
    assert found["snapshot"]["files"] == ready.hashes
    assert "certificate" in distrustful["no_repository"]["said"].lower()


@pytest.mark.slow
async def test_a_stock_client_sends_the_nodes_token_and_finds_nothing_beyond_its_reach(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        ready = await node.publish(model(tmp_path / "model", weights=400_000), "tests/model@v1")
        tokens = TokenFile(node.home.directory / "tokens.json")
        (secret, _), (other, _) = tokens.add("ci", ("tests/*",), 0), tokens.add("other", ("other/*",), 0)
        known = await Stock(node.url, tmp_path / "known", token=secret).run(["whoami", "snapshot"], **SMALL)
        nobody = await Stock(node.url, tmp_path / "nobody").run(["info", "download"], **SMALL)
        beyond = await Stock(node.url, tmp_path / "other", token=other).run(["exists"], **SMALL)
    assert known["whoami"] == "ci"
    assert known["snapshot"]["files"] == ready.hashes
    assert nobody["info"]["raised"] == "RepositoryNotFoundError"
    assert "token" in nobody["info"]["said"]
    assert "raised" in nobody["download"]
    assert beyond["exists"] == [False] * 6


async def test_a_cut_download_is_resumed_where_it_broke(tmp_path: Path, inline_node: ServedRepository) -> None:
    relay = SlowRelay(inline_node.url.removeprefix("http://"))
    relay.cut_after = 6_000_000
    try:
        found = await Stock(f"http://{relay.address}", tmp_path / "hf").run(["download"], **ASKED)
    finally:
        relay.close()
    assert relay.cuts == 1
    assert found["download"]["sha256"] == inline_node.repository.hashes[SHARD]


async def test_missing_things_raise_the_clients_own_errors_and_an_upload_names_the_command(
    tmp_path: Path, node: ServedRepository
) -> None:
    stock = Stock(node.url, tmp_path / "hf", token=f"hf_{'a' * 37}")
    found = await stock.run([*FAILING, "whoami", "upload"], **ASKED)
    check_failing(found)
    assert "raised" in found["whoami"]
    assert "comity publish" in found["upload"]["said"]


@pytest.mark.slow
async def test_a_warning_reaches_the_clients_user_once_a_repository(tmp_path: Path) -> None:
    with looking_at_each_request():
        async with gateway_node(tmp_path) as node:
            ready = await node.publish(model(tmp_path / "model", weights=400_000), "tests/model@v1")
            author = node.publisher.inception.author
            said = Advisory(author, ready.artifact, "vulnerability", "high", "pickle inside \u2013 do not load")
            async with node.home.client() as client:
                await client.submit([sign_content(said, node.publisher.signer).line])
            found = await Stock(node.url, tmp_path / "hf").run(["info", "files", "download"], **SMALL)
    assert found["stderr"].count("tests/model: vulnerability (high): pickle inside") == 1
    assert found["download"]["sha256"] == ready.hashes["weights.bin"]


@pytest.mark.slow
@pytest.mark.parametrize("files", ("", "127.0.0.1:0"), ids=("inline", "file server"))
async def test_a_flipped_bit_of_a_careless_server_is_accepted_and_ours_is_never_sent(
    tmp_path: Path, files: str
) -> None:
    """The reason for this gateway: the stock client compares nothing but lengths."""
    folder = model(tmp_path / "model", weights=9_000_000)
    async with gateway_node(tmp_path, files=files) as node:
        right = (await node.publish(folder, "tests/model@v1")).hashes["weights.bin"]
        with careless_hub("tests/model", folder) as endpoint:
            flip(folder / "weights.bin", 5_000_000)
            careless = await Stock(endpoint, tmp_path / "careless").run(["download"], **SMALL)
        assert careless["download"]["blob"] == right
        assert careless["download"]["sha256"] != right
        node.damage(right, 5_000_000)
        ours = await Stock(node.url, tmp_path / "ours").run(["download"], **SMALL)
        assert "raised" in ours["download"]
        assert not [path for path in (tmp_path / "ours").rglob("*") if path.name == right]
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:
            again = await client.head("/tests/model/resolve/v1/weights.bin")
        assert (again.status_code, again.headers["X-Error-Code"]) == (503, "NOT-HERE")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
