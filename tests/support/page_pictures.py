"""Pictures of every page of the console at two widths, light and dark, for people to look at.

    PYTHONPATH=tests python -m support.page_pictures FOLDER [--scene SCENE]... [--language CODE]...

Scenes: `alone` (a node in no federation), `single` (a federation of one member), `empty` (two members, no artifact) and
`full` (four members of which two are down, artifacts, a warning, vouches, loans, an open change of the charter). It
prints the pages that are wider than the window and the texts that are cut.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx2
from comity.gateway.app import serve_gateway
from comity.gateway.console.logs import log_id
from comity.rules.offers.offer import SliceAllocation, Window
from comity.rules.signing import sign_content
from comity.trust.content import Content
from comity.trust.statements import Advisory, Vouched
from comity.wire.offer import Redeem
from support.environments import python_with
from support.federation import Founded, found, introduced, make_home, serving, until
from support.gateway import GatewayNode
from support.governing import Person, reseated
from support.offer_commands import Borrower, Lender, reaches
from support.offers import HOUR, a_slice
from support.publisher import Publisher, Release, model
from support.tools import needs

PLAYWRIGHT = "playwright==1.65.2"
BROWSER = Path(__file__).with_name("browser_pictures.py")
DAY = 24 * HOUR
CARD = """---
base_model: swiss-ai/base
pipeline_tag: text-generation
---
# Apertus

An **open** model, trained on public texts in 1,811 languages.

| task | score |
|---|---|
| reading | 71.2 |

[How it was made](https://example.org/)
"""
FOR_ALL = {"overview": "/", "catalogue": "/-/catalogue", "error": "/-/nothing", "sign-in": "/-/sign-in"}
FOR_ALL |= {name: f"/-/{name}" for name in ("identify", "members", "logs", "proposals", "compute", "alerts")}
OF_THE_NODE = {
    f"node{name}": f"/-/node{name.replace('_', '/')}"
    for name in ("", "_waiting", "_tokens", "_settings", "_sessions", "_audit-log")
}
ARTIFACTS = {
    "artifact": "/swiss-ai/apertus-8b",
    "withdrawn": "/swiss-ai/apertus-8b/tree/v1",
    "long-name": "/swiss-ai/" + "a-model-with-a-long-name-" * 3 + "gguf",
    "loss": "/?gone=in:ES",
    "closed": "/-/compute?closed=1",
    "nothing-found": "/-/catalogue?q=zzz",
}


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[GatewayNode]:
    home = make_home(folder / "node", 0)
    async with serving(home, companion=serve_gateway) as (listening,):
        yield GatewayNode(listening.http, home, Publisher.generate())


@asynccontextmanager
async def founded(folder: Path, members: int) -> AsyncIterator[GatewayNode]:
    homes = found(folder, members).homes
    async with serving(*homes[1:]), serving(homes[0], companion=serve_gateway) as (listening,):
        yield GatewayNode(listening.http, homes[0], Publisher.generate())


@asynccontextmanager
async def full(folder: Path) -> AsyncIterator[GatewayNode]:
    publisher = Publisher.generate(label="Swiss AI Initiative")
    federation = found(folder, 4, interval=2.0, namespaces={"swiss-ai": publisher.id}, policy=(3, 2))
    homes = federation.homes
    async with serving(homes[1]), serving(homes[0], companion=serve_gateway) as (listening,):
        node = GatewayNode(listening.http, homes[0], publisher)
        await publish(node, folder)
        await lend(federation)
        await govern(federation, folder)
        await until(lambda: shows(node, "/swiss-ai/apertus-8b", "2 complete copies"), what="two copies")
        yield node


async def publish(node: GatewayNode, folder: Path) -> None:
    publisher, ready = node.publisher, list[Release]()
    names = ("apertus-8b@v1", "apertus-8b@v2", "a-model-with-a-long-name-" * 3 + "gguf@2026-11-30-release-candidate-1")
    for number, name in enumerate(names):
        files = model(folder / f"model-{number}", weights=10_000 * (number + 1), seed=number)
        (files / "README.md").write_text(CARD)
        (files / "config.json").write_text('{"max_position_embeddings": 65536}')
        ready.append(await node.publish(files, f"swiss-ai/{name}"))
    other = Publisher.generate(label="Institute for Applied Machine Learning and Public Administration")
    ready.append(await node.publish(model(folder / "other", weights=50_000), "applied-ml/translator@v1", other))
    author, mine = publisher.inception.author, other.inception.author
    said: list[tuple[Content, Publisher]] = [
        (Advisory(author, ready[0].artifact, "yank", "info", "the tokenizer was the wrong one; use v2"), publisher),
        (Advisory(mine, ready[1].artifact, "vulnerability", "high", "prompts of 64k tokens leak a cache"), other),
        (Vouched(mine, ready[1].artifact, "evaluated", "71.2 on reading, two machines, seeds 1 to 5"), other),
        (Vouched(author, ready[1].artifact, "reproduced"), publisher),
    ]
    async with node.home.client() as client:
        for content, by in said:
            await client.submit([by.announcement, sign_content(content, by.signer).line])


async def lend(federation: Founded) -> None:
    """Loans in each state that does not need another time, and a request that waits."""
    first, second, third = federation.homes[:3]
    today = int(time.time()) // DAY * DAY
    window = Window(today - DAY, today + 29 * DAY)

    def wanted(part: str, begin: int, days: int, nodes: int, amount: int) -> SliceAllocation:
        return SliceAllocation(part, nodes, today + begin * DAY, today + (begin + days) * DAY, amount)

    for home in (first, second):
        lender, borrowers = Lender(home), [Borrower.member(third), Borrower(Publisher.generate(label="Hospital lab"))]
        offer = await lender.post(window=window, title=f"Spare nodes at {home.name}", slices=(a_slice(amount=4_000),))
        for number, borrower in enumerate(borrowers):
            asked = [
                borrower.request(offer, wanted("h100", -1 if number else 1, 5, 1, 300)),
                borrower.request(offer, wanted("h100", 8, 10, 1, 200), pact=True),
                borrower.request(offer, wanted("h100", 20, 2, 1, 100)),
                borrower.request(offer, wanted("h100", 24, 2, 1, 100)),
            ]
            await borrower.submit(home, *asked)
            for request in asked[: 3 if number else 4]:
                await reaches(home, request, "requested")
                grant = await lender.approve(request.digest)
                if request is asked[2]:
                    continue
                await borrower.submit(home, borrower.accept(grant))
                state = await reaches(home, request, "accepted")
                if request is asked[0] and number and state.newest is not None:
                    redemption = borrower.redeem(grant, state.newest, 120)
                    await borrower.submit(home, redemption)
                    await lender.act(Redeem(redemption.digest))
                elif request is asked[3]:
                    await borrower.submit(home, borrower.give_back(grant))


async def govern(federation: Founded, folder: Path) -> None:
    proposer, newcomer = Person(federation.homes[0]), Person(make_home(folder / "newcomer", 5))
    charter = federation.federation.body
    admitted = reseated(charter, [*charter.members, newcomer.seat])
    await proposer.say(proposer.drafting(admitted, "Nairobi mirrors what we publish"), bodies=[admitted])
    await proposer.vote(admitted)


async def shows(node: GatewayNode, path: str, text: str) -> bool:
    async with httpx2.AsyncClient(base_url=node.url, headers={"Accept": "text/html"}, timeout=60) as http:
        return text in (await http.get(path)).text


SCENES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[GatewayNode]]] = {
    "alone": alone,
    "single": lambda folder: founded(folder, 1),
    "empty": lambda folder: founded(folder, 2),
    "full": full,
}


async def take(scene: str, languages: list[str], folder: Path) -> None:
    python, chromium = python_with(PLAYWRIGHT), needs("chromium", unlock="apt-get install chromium")
    with tempfile.TemporaryDirectory() as homes:
        async with SCENES[scene](Path(homes)) as node:
            await introduced(node.home)
            log = f"/-/logs/{log_id(str(node.home.record.log))}"
            pages = FOR_ALL | {"entries": log, "entry": f"{log}/1"} | (ARTIFACTS if scene == "full" else {})
            for language in languages:
                into = folder / language / scene
                into.mkdir(parents=True, exist_ok=True)
                async with node.home.operator() as operator:
                    link = (await operator.sign_in_link()).link
                for wanted, key in ((pages, ""), (OF_THE_NODE, link)):
                    named = {
                        name: f"{path}{'&' if '?' in path else '?'}lang={language}" for name, path in wanted.items()
                    }
                    order = {"url": node.url, "pages": named, "link": key, "language": language}
                    await report([python, str(BROWSER), chromium, str(into)], order)


async def report(command: list[str], order: Mapping[str, object]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(json.dumps(order).encode())
    if process.returncode:
        raise SystemExit(f"the browser ended with status {process.returncode}")
    for picture, seen in json.loads(output).items():
        if seen["wider"] or seen["cut"]:
            print(picture, f"{seen['wider']} px wider than the window", *seen["cut"], sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scene", action="append", choices=SCENES)
    parser.add_argument("--language", action="append")
    given = parser.parse_args()
    for scene in given.scene or SCENES:
        asyncio.run(take(scene, given.language or ["en"], given.folder))


if __name__ == "__main__":
    main()
