"""What a new publisher is made with: its home log, and its jurisdiction."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.errors import Malformed
from comity_client.publishers import default_home_log, new_publisher
from support.case import nodes
from support.world import found

PIN = found(nodes(3))


def test_the_default_home_log_is_of_a_member_in_the_publishers_jurisdiction() -> None:
    for node in nodes(3):
        assert default_home_log([PIN], node.seat.inception.jurisdiction) == str(node.record.log)


def test_the_default_home_log_is_of_any_member_if_none_is_in_the_jurisdiction() -> None:
    assert default_home_log([PIN], "ZZ") in {str(node.record.log) for node in nodes(3)}
    assert default_home_log([], "CH") == ""


def test_an_unknown_jurisdiction_is_refused_with_the_one_that_is_meant(tmp_path: Path) -> None:
    """Cosigners of the publisher's own jurisdiction do not count; `UK` would let those of GB count."""
    with pytest.raises(Malformed) as refused:
        new_publisher(tmp_path, label="Lab", jurisdiction="UK", home="")
    assert refused.value.hint == 'write "GB"' and not list(tmp_path.iterdir())
