"""The audit log has a line for each act of an operator at the node, also for one that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.content.audit_log import LOG_FILE, AuditLog
from comity.node.copies.pins import PinServicer
from comity.node.operator_acts import OperatorActs, RecordedImports
from comity.node.threads import Pools
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound

ARTIFACT = sha256(b"artifact")


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[OperatorActs]:
    pools = Pools()
    yield OperatorActs(AuditLog(tmp_path, lambda: 1_000.0), pools)
    pools.close()


def lines(home: Path) -> list[tuple[str, str]]:
    read = [json.loads(line) for line in (home / LOG_FILE).read_bytes().splitlines()]
    return [(line["act"], line["subject"]) for line in read]


async def test_pins_are_acts(acts: OperatorActs, tmp_path: Path) -> None:
    known = set[Digest]()

    async def put(pin: Pin) -> bool:
        known.add(pin.artifact)
        return True

    async def end(artifact: Digest) -> bool:
        found = artifact in known
        known.discard(artifact)
        return found

    servicer = PinServicer(cast(Any, SimpleNamespace(put=put, end=end)), cast(Any, None), acts)
    await servicer.decide(ARTIFACT, "a/b@v1", CopyPolicy(2, 2), keep=True)
    await servicer.decide(ARTIFACT)
    with pytest.raises(NotFound):
        await servicer.decide(ARTIFACT)
    done = [("pin.add", ARTIFACT), ("pin.rm", ARTIFACT), ("pin.rm", ARTIFACT), ("pin.rm.failed", ARTIFACT)]
    assert lines(tmp_path) == done


async def test_another_look_at_an_upstream_is_an_act(acts: OperatorActs, tmp_path: Path) -> None:
    async def check(name: str, token: str) -> str:
        return f"{name} {token}"

    recorded = RecordedImports(cast(Any, SimpleNamespace(check=check)), acts)
    assert cast(Any, await recorded.check("hf:org/name", "secret")) == "hf:org/name secret"
    assert lines(tmp_path) == [("import.recheck", "hf:org/name")]
    assert b"secret" not in (tmp_path / LOG_FILE).read_bytes()
