"""What a newer scanner finds in files that are held is told once, also where the node starts again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.content.inspections import KeptInspections
from comity.node.inspector import Inspector
from comity.trust.encoding import sha256
from comity.trust.evidence import Inspection
from structlog.testing import capture_logs

FIRST, SECOND = sorted(sha256(b"%d" % number) for number in range(2))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptInspections]:
    with closing(KeptInspections(tmp_path / "kept.sqlite", 1)) as old:
        for file in (FIRST, SECOND):
            old.keep(file, "config.json", Inspection("json"))
    with closing(KeptInspections(tmp_path / "kept.sqlite", 2)) as made:
        yield made


class Node:
    """An inspector over kept answers. `reading`: what happens while it reads the holds."""

    def __init__(self, kept: KeptInspections) -> None:
        proven = SimpleNamespace(last_number=None, since=None)
        ledger: Any = SimpleNamespace(read=self._number, run=self._since, tables=SimpleNamespace(proven=proven))
        pools: Any = SimpleNamespace(files=self._call)
        membership: Any = SimpleNamespace(own_node=SimpleNamespace(log="log"))
        unused: Any = None
        self.inspector = Inspector(ledger, unused, pools, membership, kept)
        self.reading: list[Any] = []

    async def _number(self, work: object) -> int:
        return 0

    async def _since(self, *arguments: object) -> list[object]:
        for work in self.reading:
            work()
        return []

    async def _call(self, work: Any, *arguments: Any) -> Any:
        return work(*arguments)

    async def read(self) -> list[str]:
        """Returns the files that the log names."""
        with capture_logs() as said:
            await self.inspector.read()
        return [entry["file"] for entry in said]

    @property
    def worse(self) -> list[str] | None:
        found = self.inspector.worse
        return None if found is None else [answer.file for answer, _ in found]


async def test_what_an_earlier_process_found_is_known_at_once_and_not_logged_again(kept: KeptInspections) -> None:
    kept.keep(SECOND, "config.json", Inspection("pickle", ("os.system",)))
    node, seen = Node(kept), list[list[str] | None]()
    assert node.worse is None
    node.reading.append(lambda: seen.append(node.worse))
    assert await node.read() == []
    assert seen == [[SECOND]] == [node.worse]


async def test_only_new_answers_are_logged_in_whatever_order(kept: KeptInspections) -> None:
    node = Node(kept)
    node.reading.append(lambda: kept.keep(SECOND, "config.json", Inspection("pickle", ("os.system",))))
    assert await node.read() == [SECOND]
    node.reading.append(lambda: kept.keep(FIRST, "config.json", Inspection("pickle", ("os.system",))))
    assert await node.read() == [FIRST]
    assert await node.read() == []
    assert node.worse == [FIRST, SECOND]
