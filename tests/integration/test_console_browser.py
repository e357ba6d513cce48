"""The console in Chromium: every page, also those after sign-in, at two widths and in two colour schemes, with
axe-core; four questions whose answers an official finds on the pages alone, without JavaScript; and a sign-in at a real
provider of OpenID Connect.

Screenshots go to `$COMITY_TESTS_SCREENSHOTS`, else to the folder of the test. Playwright and axe-core come from their
package indexes, once, as other outside clients do.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.content.kept_plan_checks import keep_plan_check
from comity.gateway.app import serve_gateway
from comity.gateway.console.logs import log_id
from comity.gateway.console.oidc.provider_sign_in import CALLBACK
from comity.rules.continuity.facts import FallbackFacts
from comity.rules.signing import sign_content
from comity.trust.statements import Advisory
from support.command_server import command_server
from support.continuity_facts import all_facts, checked
from support.environments import kept, python_with
from support.federation import found, serving, until
from support.gateway import GatewayNode
from support.glewlwyd import PASSWORD, glewlwyd
from support.openid_provider import CLIENT, SECRET
from support.publisher import Publisher, model
from support.short_form import cases
from support.tools import missing, needs

PLAYWRIGHT = "playwright==1.65.2"
AXE = "axe-core@4.14.1"
OFFICIAL = Path(__file__).resolve().parents[1] / "support" / "browser_official.py"
WALK = Path(__file__).resolve().parents[1] / "support" / "browser_walk.py"
CARD = "# Apertus\n\nOpen *weights*.\n\n| task | score |\n|---|---|\n| a | 1 |\n\n[more](https://example.org/)\n"

pytestmark = pytest.mark.slow


def axe_library() -> Path:
    with kept(AXE) as (home, fresh):
        if fresh:
            npm = needs("npm", unlock="apt-get install npm")
            command = [npm, "install", "--silent", "--ignore-scripts", "--prefix", str(home), AXE]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                missing(f"npm cannot fetch {AXE}; unlock: an npm registry at hand")
    return home / "node_modules" / "axe-core" / "axe.min.js"


@asynccontextmanager
async def lab(folder: Path, issuer: str) -> AsyncIterator[GatewayNode]:
    """Five members, of which one does not run; a rule of five copies, so that some artifacts have too few."""
    publisher = Publisher.generate(label="Swiss AI Initiative")
    homes = found(folder, 5, namespaces={"swiss-ai": publisher.id}).homes
    secret = homes[0].directory / "oidc-secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    homes[0].set("oidc", issuer=issuer, client_id=CLIENT, secret_file="oidc-secret", scopes=[])
    homes[0].set("oidc", operators=["comity-operators"])
    homes[0].set("gateway", prices_file="prices.toml")
    async with serving(*homes[1:4]), serving(homes[0], companion=serve_gateway) as (listening,):
        node = GatewayNode(listening.http, homes[0], publisher)
        prices = homes[0].directory / "prices.toml"
        prices.write_text('currency = "CHF"\nwatts = 150\n[prices]\nkwh = 0.27\nhour = 95\n')
        keep_plan_check(homes[0].directory, checked(all_facts(FallbackFacts(None))))
        weights = model(folder / "model", weights=100_000)
        (weights / "README.md").write_text(CARD)
        ready = await node.publish(weights, "swiss-ai/apertus@v1")
        warning = Advisory(publisher.inception.author, ready.artifact, "vulnerability", "high", "see the notes")
        async with node.home.client() as client:
            await client.submit((sign_content(warning, publisher.signer).line,), ())
        yield node


async def walk(node: GatewayNode, pages: dict[str, str], shots: Path, windows: int) -> Any:
    chromium = needs("chromium", unlock="apt-get install chromium")
    python = await asyncio.to_thread(python_with, PLAYWRIGHT)
    axe = await asyncio.to_thread(axe_library)
    shots.mkdir(parents=True, exist_ok=True)
    command = [python, str(WALK), node.url, str(axe), chromium, str(shots)]
    async with node.home.operator() as operator:
        links = [(await operator.sign_in_link()).link for _ in range(windows)]
    node_pages = {
        f"node{name.replace('/', '-')}": f"/-/node{name}"
        for name in ("", "/waiting", "/tokens", "/settings", "/sessions", "/costs")
    }
    node_pages["continuity"] = "/-/continuity"
    wanted = {"pages": pages, "links": links, "node_pages": node_pages, "model": "swiss-ai/apertus"}
    return await run(command, {**wanted, "jurisdiction": "ES"})


async def ask(node: GatewayNode, order: dict[str, object], shots: Path) -> Any:
    """The answers to an official's four questions, and a sign-in through the provider."""
    chromium = needs("chromium", unlock="apt-get install chromium")
    python = await asyncio.to_thread(python_with, PLAYWRIGHT)
    return await run([python, str(OFFICIAL), node.url, chromium, str(shots)], order)


async def run(command: list[str], order: dict[str, object]) -> Any:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate(json.dumps(order).encode())
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


async def type_in(home: Path, *commands: str) -> list[subprocess.CompletedProcess[str]]:
    """Run commands of the page unchanged, on the machine of a user who pinned the federation."""
    environment = {**os.environ, "COMITY_HOME": str(home / "user"), "HF_HOME": str(home / "hf")}
    done = []
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "comity"
        line = [str(command_server().comity), *arguments]
        done.append(
            await asyncio.to_thread(
                subprocess.run,
                line,
                env=environment,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        )
    return done


@pytest.mark.parametrize("windows", cases([2, 4], [2]))
async def test_an_official_finds_all_answers_on_accessible_pages(tmp_path: Path, windows: int) -> None:
    """With two windows, each width and each colour scheme once; with four, each width in each scheme."""
    shots = Path(os.environ.get("COMITY_TESTS_SCREENSHOTS") or tmp_path / "shots")
    person = {"name": "ada", "password": PASSWORD}
    with glewlwyd(tmp_path) as provider:
        async with lab(tmp_path, provider.issuer) as node:
            await asyncio.to_thread(provider.set_up, node.url + CALLBACK)
            await asyncio.to_thread(provider.add, "ada", "Ada Lovelace", "comity-operators")
            async with httpx2.AsyncClient(base_url=node.url, headers={"Accept": "text/html"}, timeout=60) as http:

                async def copied() -> bool:
                    return "4 complete copies" in (await http.get("/swiss-ai/apertus")).text

                await until(copied, what="four members to claim a copy")
            log = f"/-/logs/{log_id(str(node.home.record.log))}"
            pages = {"overview": "/", "loss": "/?gone=in:ES", "catalogue": "/-/catalogue", "sign-in": "/-/sign-in"}
            pages |= {name: f"/-/{name}" for name in ("members", "descent", "logs", "proposals", "compute", "alerts")}
            pages |= {"entries": log, "entry": f"{log}/3", "missing": "/a/b"}
            pages |= {language: f"/swiss-ai/apertus?lang={language}" for language in ("fr", "de", "ar")}
            seen = await walk(node, pages | {"artifact": "/swiss-ai/apertus"}, shots, windows)
            order: dict[str, object] = {"model": "swiss-ai/apertus", "gone": "in:ES", "person": person}
            official = await ask(node, order, shots)
            (tmp_path / "reader").mkdir()
            pin = f"comity trust pin {node.home.directory / 'federation.json'} --yes"
            typed = await type_in(tmp_path / "reader", pin, *official["how to check"])
    check_official(official)
    assert [(done.args[1:], done.returncode, done.stderr) for done in typed if done.returncode] == []
    assert "swiss-ai/apertus@v1" in typed[2].stdout
    assert seen["errors"] == []
    assert seen["signed_out"] == [{"cookies": [], "status": 403}] * windows
    assert {name: page["violations"] for name, page in seen["pages"].items() if page["violations"]} == {}
    assert {name: page["overflow"] for name, page in seen["pages"].items() if page["overflow"]} == {}
    assert len(list(shots.glob("*.png"))) >= windows * len(pages)
    answers = seen["answers"]
    by_place = {row[1]: row for row in answers["holders"]}
    assert set(by_place) == {"CH", "ES", "KR", "SG", "BR"}
    assert "Verified here" in by_place["CH"][3]
    assert "Claimed by Example Institute 1" in by_place["ES"][3]
    assert "Unknown" in by_place["BR"][3]
    assert "Does not answer" in by_place["BR"][5]
    assert "3 copies left, too few" in by_place["ES"][6]
    assert "comity verify swiss-ai/apertus@v1" in answers["commands"]
    assert "Claims a complete copy" in answers["entry"]
    assert answers["proof"].startswith("c2sp.org/tlog-proof@v1")
    assert "Not safe already" in answers["loss"]
    assert seen["keyboard"][0] == "Skip to the content"
    assert seen["keyboard"][-1] == "main"
    assert seen["printed"] == 0


def check_official(found: Any) -> None:
    """The expected answers to the four questions, from the pages alone."""
    holders = {row[1]: row for row in found["who holds it"]}
    assert {place: row[2] for place, row in holders.items()} == {
        **dict.fromkeys(("CH", "ES", "KR", "SG"), "yes"),
        "BR": "not known",
    }
    assert "Verified here" in holders["CH"][3] and "Claimed by" in holders["KR"][3]
    safe = found["is it safe"]
    assert "Not safe already" in safe["answer"] and "Claims are signed" in safe["answer"]
    assert "3 copies left, too few" in safe["model"]["ES"]
    said = found["who says so"]
    assert said["named"] in {row[2] for row in said["statements"]}
    assert any(row[1].startswith("Swiss AI Initiative") for row in said["statements"])
    assert "Déclare une copie complète" in said["entry"]
    assert said["proof"].startswith("c2sp.org/tlog-proof@v1")
    assert [command.partition(" swiss")[0] for command in found["how to check"]] == [
        "comity pull",
        "comity verify",
        "comity whereis",
    ]
    assert max(found["clicks"].values()) <= 7
    signed_in = found["signed in"]
    assert signed_in["shown"].startswith("Ada Lovelace")
    assert signed_in["cookies"] == ["Strict"]
