"""A stolen publisher key, with real nodes: what is signed with it is refused by a pull, by the gateways and by the
console, in the same words, and people are told of the loss.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from comity.gateway.app import serve_gateway
from comity.trust.errors import ComityError, PolicyNotMet
from comity.verifier import read_policy
from comity_cli.main import main
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.federation import found, serving, until
from support.publisher import model
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

STOLEN = "signed after the publisher says its key was stolen"
REASON = "the laptop is gone"
POLICY = """\
schema = "comity/policy/v1"
[[pin]]
file = "federation.json"
[publishers]
accept = {publisher}
[cosigners]
at_least = 1
[rows]
require = {rows}
"""
SIGNED = ["artifact", "signatures", "transparency"]


@dataclass(frozen=True)
class Scene:
    """Two nodes: one without a policy, one with the policy in `policy`, which lists *key policy*. The publisher of
    `lab/tiny` changed its keys and reported the loss of the first one; the thief published `lab/tiny@v2` with it."""

    client: Client
    publisher: Publisher
    policy: Path
    urls: tuple[str, str]
    home: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("stolen")
    founded = found(folder / "nodes", 2)
    client = Client(Home(folder / "home"))
    await asyncio.to_thread(client.pin, founded.federation.encode())
    thief = await asyncio.to_thread(client.new_publisher, "Lab One", "CH", founded.homes[0].origin)
    rows = json.dumps([*SIGNED, "key policy"])
    for place in (folder, founded.homes[1].directory):
        (place / "federation.json").write_bytes(founded.federation.encode())
        (place / "policy.toml").write_text(POLICY.format(publisher=json.dumps([thief.id]), rows=rows))
    founded.homes[1].set("gateway", policy="policy.toml")
    async with serving(*founded.homes, companion=serve_gateway) as nodes:
        policy = folder / "policy.toml"
        made = Scene(client, thief, policy, (nodes[0].http, nodes[1].http), folder / "home")
        await asyncio.to_thread(publish_with_a_stolen_key, made, folder)
        for url in made.urls:
            await judged_with_the_notice(url)
        yield made


def publish_with_a_stolen_key(scene: Scene, folder: Path) -> None:
    client, thief = scene.client, scene.publisher
    client.publish(model(folder / "first", weights=1_000), "lab/tiny@v1", publisher=thief, licence="MIT")
    client.publish(model(folder / "other", weights=2_000), "lab/other@v1", publisher=thief, licence="MIT")
    owner, _ = client.change_keys(thief)
    lost = client.log_checkpoint(owner.home).checkpoint.size
    client.report_lost_key(owner, lost, REASON)
    client.publish(model(folder / "second", weights=3_000, seed=2), "lab/tiny@v2", publisher=thief, licence="MIT")


async def judged_with_the_notice(url: str) -> None:
    """Wait until the node has proven what was logged: it refuses v2, and serves v1 with the notice."""

    async def told() -> bool:
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as http:
            v1, v2 = [await http.get(f"/api/models/lab/tiny/revision/{version}") for version in ("v1", "v2")]
        return v2.status_code == 403 and v1.status_code == 200 and REASON in str(v1.headers)

    await until(told, what="the gateway to know of the lost key")


async def pulled(scene: Scene, name: str, to: Path, *, listed: bool) -> ComityError | None:
    policy = read_policy(scene.policy)[0] if listed else None
    try:
        await asyncio.to_thread(scene.client.pull, name, to=to, policy=policy)
    except ComityError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize("listed", [False, True], ids=["by default", "by a policy that lists it"])
async def test_a_pull_and_a_gateway_refuse_it_in_the_same_words(scene: Scene, tmp_path: Path, listed: bool) -> None:
    refused = await pulled(scene, "lab/tiny@v2", tmp_path / "v2", listed=listed)
    assert isinstance(refused, PolicyNotMet)
    assert refused.why.startswith("key policy: Lab One [") and refused.why.endswith(STOLEN)
    async with httpx2.AsyncClient(base_url=scene.urls[listed], timeout=PATIENCE) as http:
        for path in (
            "/api/models/lab/tiny/revision/v2",
            "/lab/tiny/resolve/v2/config.json",
            "/v2/lab/tiny/manifests/v2",
        ):
            answer = await http.get(path)
            assert answer.status_code == 403, path
            assert refused.why in answer.text, path
        assert (await http.get("/api/models/lab/tiny/revision/main")).status_code == 403


async def test_the_command_says_why_and_what_to_do(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(scene.home))

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0)

    assert await asyncio.to_thread(run, "pull", "lab/tiny@v2", "--to", str(tmp_path / "v2")) == 4
    said = capsys.readouterr().err
    assert STOLEN in said and "comity show lab/tiny@v2" in said and "cosignatures" not in said
    assert await asyncio.to_thread(run, "advisory", "ls", "lab/other@v1") == 0
    assert REASON in capsys.readouterr().out, "what is said about its publisher's key concerns every artifact of it"


async def test_what_was_signed_before_the_loss_is_served_with_a_warning(scene: Scene, tmp_path: Path) -> None:
    assert await pulled(scene, "lab/tiny@v1", tmp_path / "v1", listed=True) is None
    for url in scene.urls:
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as http:
            answer = await http.get("/api/models/lab/other/revision/v1")
        assert (answer.status_code, REASON in str(answer.headers)) == (200, True)


async def test_the_console_refuses_it_and_names_the_lost_key(scene: Scene) -> None:
    html = {"Accept": "text/html"}
    for url in scene.urls:
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, headers=html) as http:
            refused = await http.get("/lab/tiny/tree/v2")
            assert refused.status_code == 403 and STOLEN in refused.text

            async def alerted(http: httpx2.AsyncClient = http) -> bool:
                return "says that a key of its was stolen" in (await http.get("/-/alerts")).text

            await until(alerted, what="the alerts to name the lost key")
            page = (await http.get("/lab/tiny/tree/v1")).text
            assert REASON in page
            overview = (await http.get("/")).text
            assert "Reported a lost key" in overview and "a key of Lab One [" in overview
