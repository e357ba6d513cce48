"""What membership costs: amounts from the node, prices from the operator, and nothing invented."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from comity.node.maintenance import membership_costs as module
from comity.node.maintenance.membership_costs import (
    PRICES,
    TASKS,
    YEAR_SECONDS,
    PriceList,
    home_bytes,
    membership_costs,
    parse_prices,
)
from comity.trust.errors import Malformed
from comity.wire.node_status import NodeStatus, StoreStatus, UsageStatus
from comity_cli.commands.costs import amount_text, command
from comity_client import own_node
from hypothesis import given
from hypothesis import strategies as st
from support.run_command import printed, refused, said

ROOT = Path(__file__).parents[4]
FILE = b"""
currency = "CHF"
watts = 150
[prices]
tb_month = 20.5
tb_sent = 5
kwh = 0.27
hour = 95
[hours]
"votes" = 4
"""
USAGE = UsageStatus(YEAR_SECONDS // 10, 3_600_000, 2 * 10**12, 10**12, 5)
STATUS = NodeStatus("test", "node.example/log", 0, (), (), StoreStatus(1, 10**12, None, 0), 0, 0, (), (), usage=USAGE)


def test_amounts_are_of_a_year_and_cost_what_the_operator_states() -> None:
    found = membership_costs(STATUS, 5 * 10**11, parse_prices(FILE))
    items = {item.name: item for item in found.items}
    amounts = {name: item.amount for name, item in items.items()}
    assert amounts == {
        "disk: store": 12,
        "disk: logs and rest": 6,
        "sent": 20,
        "received": 10,
        "CPU": 10,
        "energy": 1314,
        "staff": 4,
    }
    costs = [items[name].cost for name in ("disk: store", "energy", "received")]
    assert costs == [Decimal(246), Decimal("354.78"), None]
    assert found.total == Decimal("20.5") * 18 + 5 * 20 + Decimal("0.27") * 1314 + 95 * 4
    assert (found.unpriced, found.staff) == (("received",), (("votes", Decimal(4)),))
    assert {item.name: item.source for item in found.items}["staff"] == "stated"


def test_without_prices_there_are_amounts_only_and_without_watts_no_energy() -> None:
    found = membership_costs(STATUS, 0, PriceList())
    assert all(item.cost is None for item in found.items) and found.total == 0
    items = {item.name: item for item in found.items}
    assert (items["energy"].amount, items["staff"].source) == (None, "table")
    assert items["staff"].amount == sum(task.year for task in TASKS)


def test_what_a_node_of_older_software_did_not_measure_is_not_known() -> None:
    for usage in (None, replace(USAGE, seconds=0)):
        found = membership_costs(replace(STATUS, usage=usage), 0, PriceList())
        assert [item.amount for item in found.items if item.name in ("sent", "received", "CPU")] == [None] * 3


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"currency = 1",
        b"price = 1",
        b'[prices]\n"kwh" = 1',
        b'currency = "CHF"\n[prices]\nkw = 1',
        b'currency = "CHF"\n[prices]\nkwh = -1',
        b'currency = "CHF"\n[prices]\nkwh = true',
        b'currency = "CHF"\n[prices]\nkwh = "1"',
        b"watts = nan",
        b"watts = inf",
        b"watts = 1e13",
        b"hours = 4",
        b'[hours]\n"a\\u001b" = 1',
        b"#" * (module.MAX_PRICES_BYTES + 1),
    ],
)
def test_a_file_of_prices_that_is_wrong_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed) as failure:
        parse_prices(text)
    assert failure.value.code == "PRICES-FILE"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = parse_prices(data)
    except Malformed:
        return
    assert set(found.prices) <= set(PRICES)


def test_the_home_is_measured_without_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/ledger.sqlite", "data/blobs/aa/blob", "keys/key"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 8192)
    assert home_bytes(tmp_path, tmp_path / "data" / "blobs") == 2 * 8192
    assert home_bytes(tmp_path / "nowhere", tmp_path) == 0
    monkeypatch.setattr(module, "MAX_FILES", 1)
    with pytest.raises(Malformed, match="not measured"):
        home_bytes(tmp_path, tmp_path / "data" / "blobs")


def test_the_page_has_the_table_of_tasks() -> None:
    page = (ROOT / "docs" / "operations" / "costs.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+) \| (\d+|once) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    expected = [(t.name, "once" if t.once else str(t.times), f"{t.hours:f}", f"{t.year:.0f}") for t in TASKS]
    assert rows == expected


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "node.toml").write_text("[storage]\nblobs = 'elsewhere'\n")
    (tmp_path / "prices.toml").write_bytes(FILE)

    def status(socket: Any) -> NodeStatus:
        return STATUS

    monkeypatch.setattr(own_node, "operator_status", status)
    return tmp_path


def test_the_command_says_what_is_measured_stated_and_estimated(home: Path) -> None:
    text = said(command, "--node", home)
    assert "estimates of the table" in text and "--prices FILE" in text and "36 d" in text
    priced = said(command, "--node", home, "--prices", home / "prices.toml")
    assert "CHF A YEAR" in priced and "together, with a price" in priced and "Without a price: received" in priced
    document = printed(command, "--node", home, "--prices", home / "prices.toml")
    assert (document["currency"], document["without_price"]) == ("CHF", ["received"])
    assert printed(command, "--node", home)["total"] is None
    (home / "prices.toml").write_text("nothing = 1")
    refused(command, "--node", home, "--prices", home / "prices.toml")


def test_a_short_measurement_and_older_software_are_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_node, "operator_status", lambda socket: replace(STATUS, usage=replace(USAGE, seconds=7200)))
    assert "measured for 2 h only" in said(command, "--node", home)
    monkeypatch.setattr(own_node, "operator_status", lambda socket: replace(STATUS, usage=None))
    assert "older" in said(command, "--node", home)


def test_amounts_are_short() -> None:
    numbers = ("1051.3", "12.34", "1.234", "0.0041", "0.0000001", "0", "100000")
    texts = ["1,051", "12.3", "1.23", "0.0041", "<0.001", "0", "100,000"]
    assert [amount_text(Decimal(number)) for number in numbers] == texts
    assert amount_text(None) == "-"
