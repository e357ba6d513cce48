"""What to do next, on every page of a node in no federation, in one of a single member, and in one without artifacts.

The pages are those of the routes that the console of the running node declares.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest
from comity.gateway import app as gateway
from comity.gateway.app import serve_gateway
from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.logs import log_id
from comity.gateway.console.setup import console_routes
from comity.gateway.declared_routes import DeclaredRoute
from support import command_lines
from support.console import check_page
from support.federation import NodeHome, found, introduced, make_home, serving
from support.gateway import GatewayNode
from support.publisher import Publisher
from support.waiting import PATIENCE

NOT_A_PAGE = {
    "/-/console.css": "a style sheet",
    "/-/feeds/{kind}.atom": "a feed",
    "/-/feeds/publishers/{identity}.atom": "a feed",
    "/-/lineage/{namespace}/{name}/{revision}.svg": "a picture",
    "/-/logs/{log}/checkpoint": "a file",
    "/-/logs/{log}/{index}.proof": "a file",
    "/-/{rest:path}": "an address of no page",
    "/{name}": "of an alias, which leads to an artifact",
    "/{namespace}/{name}": "of an artifact: there is none",
    "/{namespace}/{name}/tree/{revision}": "of an artifact: there is none",
}
STEPS = {"alone": "comity join ", "single": "comity invite ", "empty": "comity publish "}
OF_A_PAGE = {
    ("single", "/-/catalogue"): "comity publish ",
    ("empty", "/-/proposals"): "comity proposal new ",
    ("empty", "/-/compute"): "comity offer new ",
}
"""Where a page that is empty has a step of its own."""


def homes_of(situation: str, folder: Path) -> Sequence[NodeHome]:
    if situation == "alone":
        return (make_home(folder / "alone", 0),)
    return found(folder, 1 if situation == "single" else 2).homes


@asynccontextmanager
async def console(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[GatewayNode, list[str]]]:
    """A running node, and the paths of the routes of its console that take GET."""
    paths: list[str] = []
    opened = console_routes

    @asynccontextmanager
    async def recorded(*parts: Any) -> AsyncIterator[Sequence[DeclaredRoute]]:
        async with opened(*parts) as routes:
            paths[:] = [route.path for route in routes if "GET" in (route.methods or ())]
            yield routes

    monkeypatch.setattr(gateway, "console_routes", recorded)
    async with serving(home, companion=serve_gateway) as (listening,):
        yield GatewayNode(listening.http, home, Publisher.generate()), paths


@pytest.mark.slow
@pytest.mark.parametrize("situation", STEPS)
async def test_every_page_says_what_to_do_next(situation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = homes_of(situation, tmp_path)[0]
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)  # files need not exist
    async with console(home, monkeypatch) as (node, paths):
        await introduced(home)
        assert set(NOT_A_PAGE) <= set(paths)
        log = log_id(str(home.record.log))
        pages = [path.format(log=log, index=0) for path in paths if path not in NOT_A_PAGE]
        async with httpx2.AsyncClient(base_url=node.url, headers={"Accept": "text/html"}, timeout=PATIENCE) as http:
            assert next_steps((await http.get("/-/sign-in")).text)[0][1].startswith("comity console sign-in ")
            await sign_in(node, http)
            for path in sorted({*pages} - {"/-/sign-in"}):
                ((sentence, command),) = next_steps(await text_of(http, path))
                assert command.startswith(OF_A_PAGE.get((situation, path), STEPS[situation])), path
                assert sentence.count(".") == 1 and sentence.endswith(".")
                command_lines.parse(shlex.split(command)[1:])
            for language in LANGUAGES:
                for path in ("/", "/-/catalogue", "/-/proposals", "/-/compute"):
                    assert len(next_steps(await text_of(http, f"{path}?lang={language}"))) == 1


async def text_of(http: httpx2.AsyncClient, path: str) -> str:
    answer = await http.get(path)
    assert answer.status_code == 200, path
    check_page(answer.text)
    return answer.text


def next_steps(text: str) -> list[tuple[str, str]]:
    """The sentence and the command of each step that a page shows."""
    shown = re.findall(r'<div class="next"><p>(.*?)</p>\s*<pre[^>]*><code>(.*?)</code></pre></div>', text, re.DOTALL)
    return [(sentence, command) for sentence, command in shown]


async def sign_in(node: GatewayNode, http: httpx2.AsyncClient) -> None:
    async with node.home.operator() as operator:
        link = (await operator.sign_in_link()).link
    key = httpx2.URL(link).params["key"]
    answer = await http.post("/-/sign-in", data={"key": key}, headers={"Origin": node.url})
    assert answer.status_code == 303
