"""Programs that were not written for Comity read models from a node's gateway: the table in docs/clients/README.md.

Each program gets files in its own way, and the files or results that it wrote are compared with what was published. A
row of the table is what this test found; `COMITY_TESTS_WRITE=1` writes the rows again.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from support.client_repository import ClientRepository, ServedRepository, served, written
from support.fenced import ROOT
from support.other_clients import OTHER_CLIENTS, Place
from support.publisher import release, send
from support.seeded import seeded_bytes
from support.tools import REQUIRE_ALL

PAGE = ROOT / "docs" / "clients" / "README.md"
LEAST = 25
"""Programs that have to read the repository."""
WHOLE = ("hf", "kserve-storage", "@huggingface/hub", "skopeo", "oras", "oras (Python)", "podman")
"""Clients that fetch whole repositories."""
WRITE = "COMITY_TESTS_WRITE"
HEAD = (
    f"{len(OTHER_CLIENTS)} programs:\n\n| client | version | what it does in the test | result |\n|---|---|---|---|\n"
)
BLOCK = re.compile(r"(<!-- made by tests/interop/test_other_clients\.py -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def rows() -> dict[str, str]:
    """The rows of the table, by client."""
    found = BLOCK.search(PAGE.read_text("utf-8"))
    assert found, "docs/clients/README.md has no table for this test"
    lines = [line for line in found[2].splitlines() if line.startswith("| `")]
    return {line.split(" | ")[0].removeprefix("| ").strip("`"): line for line in lines}


def write(name: str, row: str) -> None:
    made = {**rows(), name: row}
    table = HEAD + "".join(f"{made[each]}\n" for each in OTHER_CLIENTS if each in made)
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + table + found[3], PAGE.read_text("utf-8")), "utf-8")


def without_version(row: str) -> str:
    return re.sub(r"^(\| [^|]+\|)[^|]+", r"\1", row)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many(repository: ClientRepository, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A place with 2,500 files of 11 kB."""
    folder, name = tmp_path_factory.mktemp("many"), "clients/many"
    files = {f"part-{number // 100}/{number}.json": seeded_bytes(11_000, str(number)) for number in range(2_500)}
    ready = release(repository.publisher, written(folder / "files", files), f"{name}@v1")
    async with served(repository, folder, files="127.0.0.1:0") as node:
        async with node.node.home.client() as client:
            await send(client, ready)
        yield Place(node.url, folder, ready, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_CLIENTS)
def test_a_client_gets_the_published_bytes(tmp_path: Path, node: ServedRepository, name: str) -> None:
    client = OTHER_CLIENTS[name]
    version, found = client.version(), client.read(Place(node.url, tmp_path, node.repository.child))
    row = f"| `{name}` | {version} | {client.does} | {found} |"
    if os.environ.get(WRITE) == "1":
        write(name, row)
    loose = client.distribution and os.environ.get(REQUIRE_ALL) != "1"
    seen, listed = (without_version(each) if loose else each for each in (row, rows().get(name, "")))
    assert seen == listed, f"to write the table again: {WRITE}=1 pytest -m slow {Path(__file__).name}"


@pytest.mark.long
@pytest.mark.parametrize("name", WHOLE)
def test_a_client_that_fetches_whole_repositories_gets_many_files(tmp_path: Path, many: Place, name: str) -> None:
    found = OTHER_CLIENTS[name].read(replace(many, folder=tmp_path))
    assert found == "2,500 files, 27,500,000 bytes, as published"


def test_the_table_lists_the_clients_that_are_tried_here() -> None:
    assert list(rows()) == list(OTHER_CLIENTS)
    assert f"\n{HEAD}" in PAGE.read_text("utf-8")
    assert len(OTHER_CLIENTS) >= LEAST
