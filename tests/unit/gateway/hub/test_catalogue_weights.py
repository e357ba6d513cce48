"""What the gateway keeps weighs at least what it takes in memory."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from comity.gateway.hub.catalogue import publications_weight
from comity.trust.claims import Publication, read_claims
from support.case import case
from support.world import identity

GOOD = case()


def publications() -> list[Publication]:
    """Those of the case, of which no object is shared with what was read before."""
    found = read_claims([bytes(bytearray(line)) for line in GOOD.claims], GOOD.artifact)
    return list(found.publications)


@pytest.mark.parametrize("times", [1, 20])
def test_publications_weigh_no_less_than_they_take(times: int) -> None:
    publications()
    gc.collect()
    tracemalloc.start()
    try:
        kept = [each for _ in range(times) for each in publications()]
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept[0].publisher.id == identity("Swiss AI", "CH").inception.id
    assert taken <= publications_weight(kept) <= 4 * taken
