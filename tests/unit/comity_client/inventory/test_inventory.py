"""The file of an inventory: read as it was written, bounded, and refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comity.trust.errors import Malformed, NotFound
from comity_client.inventory import inventory
from comity_client.inventory.inventory import Inventory, read_inventory
from hypothesis import given, settings
from support.examples import examples
from support.inventories import an_inventory, inventories


@given(inventories())
@settings(max_examples=examples(50))
def test_an_inventory_is_read_as_it_was_written(made: Inventory) -> None:
    assert Inventory.parse(made.encode()) == made


def test_each_item_has_a_line_of_its_own() -> None:
    made = an_inventory()
    lines = made.encode().decode().splitlines()
    items = [json.loads(line.rstrip(",")) for line in lines if line.startswith("{") and len(line) > 1]
    assert [each["path"] for each in items if "sha256" in each] == [each.path for each in made.files]
    members = [line.partition(":")[0] for line in lines if '": ' in line and line.startswith('"')]
    assert members == sorted(json.dumps(name) for name in made.to_json())


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"schema": "comity.dev/inventory/v2"}', b'{"files": ["' + b"x" * 99],
)
def test_a_file_that_is_no_inventory_is_refused_with_the_reason(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "site.json").write_bytes(data)
    with pytest.raises(Malformed) as refused:
        read_inventory(tmp_path / "site.json")
    assert (refused.value.code, "site.json" in refused.value.what) == ("INVENTORY", True)
    assert refused.value.why and refused.value.hint


def test_a_member_that_is_out_of_bounds_is_refused() -> None:
    for old, new in ((b'"size":10', b'"size":-1'), (b'"/srv/y"', b'"/srv/\\n"'), (b'"yank"', b'"hello"')):
        assert old in an_inventory().encode()
        with pytest.raises(Malformed):
            Inventory.parse(an_inventory().encode().replace(old, new))


def test_too_large_a_file_is_refused_before_it_is_parsed_and_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site.json").write_bytes(an_inventory().encode())
    monkeypatch.setattr(inventory, "MAX_BYTES", 100)
    with pytest.raises(Malformed, match="no inventory"):
        read_inventory(tmp_path / "site.json")
    with pytest.raises(Malformed, match="too much for one inventory") as refused:
        an_inventory().encode()
    assert refused.value.hint == "name fewer paths"


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_inventory(tmp_path / "none")
