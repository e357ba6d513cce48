"""A repository that is gone, read through a gateway by the word of members, with an unmodified client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.rules.continuation import Continues
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import Author
from comity_client.identity_signer import IdentitySigner
from support.gateway import GatewayNode, gateway_node, looking_at_each_request
from support.publisher import model
from support.stock import Stock
from support.waiting import PATIENCE

COMMIT = "1f" * 20
GONE = f"hf:meta/gone@{COMMIT}"


@pytest.fixture(autouse=True)
def _what_was_logged_is_seen_at_once() -> Iterator[None]:
    with looking_at_each_request():
        yield


async def state(node: GatewayNode, folder: Path, member: int, artifact: Digest) -> None:
    """Log at the node what a member states with the governance keys in its home."""
    signer = IdentitySigner.of_member(folder / f"node-{member}")
    said = Continues(Author("identity", signer.identity), artifact, GONE, 0)
    async with node.home.client() as client:
        await client.submit((*signer.lines, sign_content(said, *signer.signers).line), ())


@pytest.mark.slow
async def test_a_stock_client_reads_a_repository_that_is_gone(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, members=2, continuations=2) as node:
        kept = await node.publish(model(tmp_path / "kept"), "tests/kept@v1")
        async with httpx2.AsyncClient(base_url=node.url, follow_redirects=True, timeout=PATIENCE) as http:
            await state(node, tmp_path, 0, kept.artifact)
            alone = await http.get("/api/models/meta/gone")
            await state(node, tmp_path, 1, kept.artifact)
            file = await http.get(f"/meta/gone/resolve/{COMMIT}/config.json")
            page = await http.get("/tests/kept/tree/v1", headers={"Accept": "text/html"})
            dataset = await http.get("/api/datasets/meta/gone")
        request: dict[str, Any] = {"repository": "meta/gone", "revision": "main", "file": "config.json", "search": ""}
        found = await Stock(node.url, tmp_path / "hf").run(["info", "snapshot"], **request)
    assert (alone.status_code, alone.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert file.headers["X-Comity-Continues"] == f"{GONE}; artifact=sha256:{kept.artifact}; members=2"
    assert file.headers["X-Repo-Commit"] == COMMIT
    assert sha256(file.content) == kept.hashes["config.json"]
    assert found["snapshot"]["files"] == kept.hashes
    assert (found["info"]["id"], found["info"]["sha"]) == ("meta/gone", COMMIT)
    assert found["snapshot"]["commit"] == COMMIT and "tests/kept@v1" in found["stderr"]
    assert GONE in page.text
    assert dataset.status_code == 404
