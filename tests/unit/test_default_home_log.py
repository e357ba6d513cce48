"""Which log orders the versions of a publisher that names none."""

from __future__ import annotations

from comity_client.publishers import default_home_log
from support.case import nodes
from support.world import found

PIN = found(nodes(3))


def test_it_is_the_log_of_a_member_in_the_publishers_jurisdiction() -> None:
    for node in nodes(3):
        assert default_home_log([PIN], node.seat.inception.jurisdiction) == node.record.origin


def test_without_such_a_member_it_is_one_of_the_federation_and_without_a_federation_none() -> None:
    assert default_home_log([PIN], "ZZ") in {node.record.origin for node in nodes(3)}
    assert default_home_log([], "CH") == ""
