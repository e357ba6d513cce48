"""Own machines, as `comity offer fit --room` takes them."""

from __future__ import annotations

import click
import pytest
from comity.addons.fit.command import parse_group


def test_a_group_of_own_machines_is_typed_as_one_word() -> None:
    name, room = parse_group("H100:8:80:2")
    assert (name, room.accelerator, room.count, room.memory_gib, room.nodes) == ("H100:8:80:2", "H100", 8, 80, 2)
    assert parse_group("L4:1:24")[1].nodes == 1
    for text in ("H100", "H100:8", ":8:80", "H100:0:80", "H100:8:80:1:1", "H100:x:80"):
        with pytest.raises(click.UsageError):
            parse_group(text)
