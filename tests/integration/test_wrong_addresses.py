"""A node that announces addresses at which it is not: it is still reached where the federation file says."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from socket import create_server

import pytest
from comity.trust.tlog.note import Checkpoint
from support.federation import NodeHome, found, note_of, serving, until

pytestmark = pytest.mark.slow


async def size_at(asked: NodeHome, origin: str) -> int:
    """The size of a log as a node shows it; 0 if it has none of it."""
    async with asked.client() as client:
        note = await note_of(client, origin)
    return Checkpoint.parse(note.text).size if note else 0


async def test_the_correction_of_a_wrong_address_is_read(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    with closing(create_server(("127.0.0.1", 0))) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    right, wrong = (list(second.card.mutual), list(second.card.open)), ([closed], [closed])
    logged = 0
    async with serving(first):
        for mutual, open_ in (right, wrong, right):
            second.set("advertise", mutual=mutual, open=open_)
            async with serving(second):

                async def grown() -> bool:
                    return await size_at(second, second.origin) > logged  # noqa: B023 - awaited in this round

                await until(grown, what="the second node to log its addresses")
                logged = await size_at(second, second.origin)

                async def level() -> bool:
                    return await size_at(first, second.origin) >= logged  # noqa: B023 - awaited in this round

                await until(level, what=f"the first node to read that the second one is at {mutual} and {open_}")
