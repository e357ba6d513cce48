"""The bytes of every call are those of the vectors, and each call of the contract is declared."""

from __future__ import annotations

import json
from pathlib import Path

from comity.wire.services import CALL_RULES
from google.protobuf.descriptor_pool import Default
from support.wire_vectors import recorded

VECTORS = json.loads(Path(__file__).with_name("wire_vectors.json").read_text(encoding="utf-8"))
"""Recorded with codecs, calls and servicers that were written by hand, before they were derived from declarations."""


async def test_every_call_has_the_recorded_bytes_in_both_directions() -> None:
    made, asked = await recorded("1")
    for call, vector in zip(made, VECTORS["calls"], strict=True):
        assert list(call) == vector, call[0]
    assert asked == VECTORS["asked"]


def test_the_vectors_have_every_call_of_the_contract() -> None:
    ours = {path for path in CALL_RULES if path.startswith("/comity.v1.")}
    services = [Default().FindServiceByName(name) for name in sorted({path.split("/")[1] for path in ours})]
    assert ours == {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert {path for path, *_ in VECTORS["calls"]} == ours
