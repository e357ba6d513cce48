"""The log event of a request: it shows why the request was refused, and contains no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from structlog.testing import capture_logs
from support.gateway import GatewayNode, gateway_node
from support.publisher import model
from support.waiting import PATIENCE


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    async with gateway_node(tmp_path, public=False) as running:
        await running.publish(model(tmp_path / "model", weights=100), "tests/model@v1")
        yield running


async def asked(node: GatewayNode, target: str, **headers: str) -> dict[str, Any]:
    """The event of one request."""
    with capture_logs() as events:
        async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=PATIENCE) as http:
            await http.get(target)
    (event,) = [dict(event) for event in events if event["event"] == "request"]
    return event


async def test_a_missing_file_is_named_with_its_repository(node: GatewayNode) -> None:
    secret = TokenFile(node.home.directory / TOKENS_FILE).add("ci", ("*",), 0)[0]
    event = await asked(node, "/tests/model/resolve/v1/no/such.bin?download=1", Authorization=f"Bearer {secret}")
    assert (event["status"], event["code"], event["repository"]) == (404, "EntryNotFound", "tests/model")
    assert event["path"] == "/tests/model/resolve/v1/no/such.bin"
    assert secret not in str(event)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/tests/other/resolve/main/a?Signature=secret", "/tests/other/resolve/main/a"),
        (f"/tests/hf_{'a' * 40}/resolve/main/a", "/tests/(hidden)/resolve/main/a"),
        ("/a%0Ab%1b%5B2J/c", "/a b\N{REPLACEMENT CHARACTER}[2J/c"),
        ("/" + "a" * 5000, "/" + "a" * 299),
    ],
)
async def test_a_path_is_bounded_on_one_line_and_without_secrets(node: GatewayNode, target: str, path: str) -> None:
    event = await asked(node, target)
    assert event["path"] == path
    assert "secret" not in str(event)
    assert "a" * 40 not in event["repository"]
