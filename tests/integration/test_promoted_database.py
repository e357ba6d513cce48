"""The PostgreSQL of a writer dies and its streaming standby is promoted: the writer goes on there, in the same log,
with everything that was acknowledged. The settings are those of docs/operations/grow.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from comity.trust.encoding import Digest, sha256
from psycopg.conninfo import conninfo_to_dict
from support.federation import NodeProcess, converged, found, until
from support.publisher import Publisher, model, release, send
from support.replicated_postgres import replicated_postgres

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "operations" / "grow.md"
SECTION: Final = PAGE.read_text().partition("### A database with a standby of its own\n")[2].partition("\n## ")[0]


def documented(language: str) -> str:
    """The block of the section in this language."""
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_documented_address_names_both_servers() -> None:
    (url,) = re.findall(r'database = "([^"]+)"', documented("toml"))
    assert len(str(conninfo_to_dict(url)["host"]).split(",")) == 2


async def test_the_writer_goes_on_at_a_promoted_server_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: dict[int, Digest] = {}
    with replicated_postgres() as servers:
        servers.replicate([line for line in documented("sql").split(";\n") if line])
        first, other = found(tmp_path / "nodes", 2).homes
        first.set("storage", database=servers.url(servers.first.database()))
        mirror, writer = NodeProcess(other), NodeProcess(first)

        async def publish(*names: str) -> None:
            async with first.client() as client:
                for name in names:
                    what = release(Publisher.generate(), model(tmp_path / name, weights=1024), f"tests/{name}@v1")
                    for receipt in (await send(client, what)).receipts:
                        acknowledged[receipt.index] = receipt.line_digest

        try:
            await writer.ready()
            await converged((first, other), first)
            await publish("one", "two", "three")
            servers.kill_first()
            assert writer.ended() != 0
            servers.promote()
            writer = NodeProcess(first)
            await writer.ready()
            await until(lambda: _asks(writer), what="the writer to take the database for a copy")
            await publish("four")
            await converged((first, other), first, least=max(acknowledged) + 1)
            async with first.client() as client, other.client() as elsewhere:
                for source in (client, elsewhere):
                    batches = [each async for each in source.entries(first.origin, 0, max(acknowledged) + 1)]
                    lines = [line for batch in batches for line in batch.lines]
                    assert {at: sha256(lines[at]) for at in acknowledged} == acknowledged
                assert await elsewhere.misbehaviour() == ()
        finally:
            writer.close()
            mirror.close()


def _asks(writer: NodeProcess) -> bool:
    return any("copy" in str(event["event"]) for event in writer.events)
