"""Where the statement of a node is in its own log: as nodes claim it, or as they prove it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.trust.statement import Entry
from comity_client.evidence import artifact_info
from comity_client.session import RemoteNode, Session

OWN = "own.example/log"


@pytest.mark.parametrize(
    ("places", "proven", "index"),
    [
        ([(OWN, 3), ("far.example/log", 9)], [5], 3),
        ([(OWN, 3), (OWN, 9)], [5, 4], 5),
        ([("far.example/log", 9)], [5], 5),
        ([], [], -1),
    ],
)
async def test_a_place_that_no_node_claims_or_several_is_proven(
    places: list[tuple[str, int]], proven: list[int], index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may log a statement of another in so many logs that an answer leaves out the one that counts."""

    async def proven_indexes(*_: Any) -> list[int]:
        return proven

    monkeypatch.setattr(artifact_info, "proven_indexes", proven_indexes)
    node = cast(RemoteNode, SimpleNamespace(record=SimpleNamespace(origin=OWN, log=f"{OWN}+key")))
    entry = cast(Entry, SimpleNamespace(line=b"a hold"))
    assert await artifact_info._own_index(cast(Session, None), node, entry, places) == index
