"""Web pages that read the gateway: refused unless the settings name their exact origin. And `git` clients, which get an
explanation.
"""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import httpx2
import pytest
from comity.trust.errors import Malformed
from support.federation import make_home
from support.gateway import gateway_node
from support.publisher import model
from support.tools import needs
from support.waiting import PATIENCE

ORIGIN = "https://app.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization, range"}
ALLOWED = "Access-Control-Allow-Origin"


async def test_no_page_may_read_the_gateway_by_default(tmp_path: Path) -> None:
    async with gateway_node(tmp_path) as node, httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as http:
        preflight = await http.options("/api/models", headers={"Origin": ORIGIN, **PREFLIGHT})
        assert preflight.status_code == 405
        plain = await http.get("/api/models", headers={"Origin": ORIGIN})
        assert ALLOWED not in preflight.headers and ALLOWED not in plain.headers


async def test_a_page_of_an_origin_in_the_settings_may_read_and_no_other(tmp_path: Path) -> None:
    async with (
        gateway_node(tmp_path, cors_origins=[ORIGIN], files="127.0.0.1:0") as node,
        httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as http,
    ):
        await node.publish(model(tmp_path / "model", weights=400_000), "tests/model@v1")
        preflight = await http.options("/api/models", headers={"Origin": ORIGIN, **PREFLIGHT})
        assert (preflight.status_code, preflight.headers[ALLOWED]) == (200, ORIGIN)
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        assert {"GET", "HEAD", "POST"} == set(preflight.headers["Access-Control-Allow-Methods"].split(", "))
        for path in ("/api/models/tests/model", "/api/models/tests/nothing", "/tests/model/resolve/v1/config.json"):
            answer = await http.get(path, headers={"Origin": ORIGIN})
            assert answer.headers[ALLOWED] == ORIGIN, "errors too"
            assert "X-Error-Code" in answer.headers["Access-Control-Expose-Headers"]
            assert "Origin" in answer.headers["Vary"]
        large = "/tests/model/resolve/v1/weights.bin"
        assert (await http.get(large)).status_code == 302
        direct = await http.get(large, headers={"Origin": ORIGIN, "Range": "bytes=0-9"})
        assert (direct.status_code, len(direct.content)) == (206, 10), "no redirect, after which the origin is unknown"
        for other in ("https://app.example.org:8443", "http://app.example.org", "https://evil.example", "null"):
            refused = await http.options("/api/models", headers={"Origin": other, **PREFLIGHT})
            assert refused.status_code == 400
            assert ALLOWED not in (await http.get("/api/models", headers={"Origin": other})).headers


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://*.example.org", "https://a.example/", "a.example", "HTTPS://A"]
)
def test_an_origin_in_the_settings_is_exact(tmp_path: Path, origin: str) -> None:
    home = make_home(tmp_path / "home", 0)
    home.set("gateway", cors_origins=[origin])
    with pytest.raises(Malformed, match=r"gateway\.cors_origins"):
        home.config()


@pytest.mark.parametrize("name", ["tests/model", "tests/model.git", "nobody/nothing"])
async def test_git_gets_an_explanation_in_one_sentence(tmp_path: Path, name: str) -> None:
    git = needs("git", unlock="apt-get install git")
    async with gateway_node(tmp_path, public=False) as node:
        command = (git, "clone", f"{node.url}/{name}", str(tmp_path / "clone"))
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    told = f"this is a Comity node and no Git server: use comity pull {name.removesuffix('.git')}"
    assert f"remote error: {told}" in done.stderr
    assert "not found" not in done.stderr
