"""`search`: where nodes name more results than are listed, no single node decides which are listed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.wire.artifact import SearchPage
from comity.wire.messages import LocatedEntry
from comity_client.evidence import search
from comity_client.session import Answers

AUTHOR = Identity.made("an author")
LIMIT = 8


@frozen
class Asked:
    """A node, of a member of its own."""

    name: str

    @property
    def member(self) -> SimpleNamespace:
        return SimpleNamespace(id=self.name)


def published(names: list[str]) -> list[LocatedEntry]:
    lines = (AUTHOR.publish(name, Release(name.encode())) for name in names)
    return [LocatedEntry("node/log", index, line) for index, line in enumerate(lines)]


async def test_a_node_that_invents_many_names_hides_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    invented, true = published([f"evil/tiny-{n}@v1" for n in range(LIMIT)]), published(["swiss-ai/tiny@v1"])
    told: Any = {Asked("first"): SearchPage(tuple(invented)), Asked("another"): SearchPage(tuple(true))}

    class Session:
        reader, nodes = EvidenceReader(), ()

        async def ask(self, question: object) -> Answers[SearchPage]:
            return Answers(told, {})

    async def no_records(*_: object) -> dict[Any, Any]:
        return {}

    monkeypatch.setattr(search, "publisher_records", no_records)
    session: Any = Session()
    found = await search.search_artifacts(session, "tiny", LIMIT)
    assert len(found) == LIMIT
    assert "swiss-ai/tiny@v1" in [each.name for each in found]
