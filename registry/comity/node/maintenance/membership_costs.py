"""What membership costs in a year: amounts from a node's own measurement and home, and the operator's own prices.

    disk        what the node holds now, kept for a year: growth is not extrapolated
    sent,       bytes of files since the node started, extrapolated to a year by the length of that time. What logs,
    received    questions and TLS take is not measured
    CPU         of the node's process since it started, extrapolated alike. A front end is another process
    energy      the watts that the operator states, for a year
    staff       hours by task: of TASKS, or those that the operator states

Comity knows no prices and invents none: what has no price in the operator's file has an amount only. Source:
docs/operations/costs.md.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, Literal

from comity.content.durable import disk_errors
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.wire.node_status import NodeStatus

YEAR_SECONDS: Final = 365 * 86_400
YEAR_HOURS: Final = 8_760
LEAST_SECONDS: Final = 7 * 86_400
"""What was measured for a shorter time says little about a year."""
TERABYTE: Final = 10**12
MAX_PRICES_BYTES: Final = 1 << 16
MAX_FILES: Final = 1_000_000
MOST: Final = Decimal(10) ** 12
CPU: Final = "CPU"
PRICES: Final = ("tb_month", "tb_sent", "tb_received", "kwh", "hour")
Source = Literal["measured", "stated", "table"]


@frozen
class StaffTask:
    """Work of people in a year: how often, and hours each time."""

    name: str
    times: int
    hours: Decimal
    once: bool = False

    @property
    def year(self) -> Decimal:
        return self.times * self.hours


TASKS: Final = (
    StaffTask("install, keys and joining", 1, Decimal(16), once=True),
    StaffTask("status and alerts", 52, Decimal("0.5")),
    StaffTask("upgrades", 6, Decimal("1.5")),
    StaffTask("votes on proposals", 6, Decimal(1)),
    StaffTask("mirror rules and space", 12, Decimal("0.5")),
    StaffTask("backups, restored once", 2, Decimal(3)),
    StaffTask("drills", 2, Decimal(4)),
    StaffTask("keys and certificates", 2, Decimal(2)),
    StaffTask("faults", 2, Decimal(4)),
)
"""Estimates of those who wrote the software, from what the guides ask for; no member has measured them. `once`: in the
first year only."""


@frozen
class PriceList:
    """What an operator states: `prices` by PRICES, in `currency`; `hours` of a year by task, in place of TASKS."""

    currency: str = ""
    watts: Decimal | None = None
    prices: Mapping[str, Decimal] = field(default_factory=dict)
    hours: Mapping[str, Decimal] | None = None


@frozen
class CostItem:
    """One row.

    Attributes:
        amount: of a year, in `unit`; None where it is not known.
        source: measured at the node, stated by the operator, or of the table of tasks.
        price: for one unit; None for none. cost: None without a price or an amount.
    """

    name: str
    amount: Decimal | None
    unit: str
    source: Source
    price: Decimal | None

    @property
    def cost(self) -> Decimal | None:
        return None if self.amount is None or self.price is None else self.amount * self.price


@frozen
class MembershipCosts:
    """The costs of a year. `seconds`: for how long the node measured. `staff`: hours of each task."""

    seconds: int
    currency: str
    items: tuple[CostItem, ...]
    staff: tuple[tuple[str, Decimal], ...]

    @property
    def total(self) -> Decimal:
        """The sum of the costs that are known."""
        return sum((item.cost for item in self.items if item.cost is not None), Decimal(0))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The items that have an amount and no price."""
        return tuple(item.name for item in self.items if item.price is None and item.name != CPU)


def parse_prices(data: bytes) -> PriceList:
    """Read the operator's file. Raises Malformed (PRICES-FILE).

    currency = "CHF"
    watts = 150                        # what the machines of the node draw, on average

    [prices]                           # each may be left out
    tb_month = 20.5                    # a terabyte on the disks for a month
    tb_sent = 5
    tb_received = 0
    kwh = 0.27
    hour = 95

    [hours]                            # of a year; in place of the table of tasks
    "votes on proposals" = 4
    """
    if len(data) > MAX_PRICES_BYTES:
        raise _malformed(f"it has more than {MAX_PRICES_BYTES} bytes")
    try:
        document = tomllib.loads(data.decode("utf-8"), parse_float=Decimal)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, InvalidOperation, RecursionError) as error:
        raise _malformed(str(error)[:200]) from error
    if wrong := sorted(document.keys() - {"currency", "watts", "prices", "hours"}):
        raise _malformed(f"there is no key {wrong[0][:64]!r}")
    currency = document.get("currency", "")
    if not isinstance(currency, str) or len(currency) > 8 or not currency.isprintable():
        raise _malformed("currency is a text of at most 8 characters")
    prices, hours = _table(document, "prices"), _table(document, "hours")
    if prices and (wrong := sorted(prices.keys() - set(PRICES))):
        raise _malformed(f"there is no price {wrong[0][:64]!r}; there are {', '.join(PRICES)}")
    if prices and not currency:
        raise _malformed("prices need a currency")
    watts = _number(document["watts"], "watts") if "watts" in document else None
    return PriceList(currency, watts, prices or {}, hours)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Decimal] | None:
    table = document.get(key)
    if table is None:
        return None
    if not isinstance(table, dict) or len(table) > 100:
        raise _malformed(f"{key} is a table of at most 100 lines")
    if any(len(name) > 64 or not name.isprintable() for name in table):
        raise _malformed(f"a name in {key} has at most 64 printable characters")
    return {name: _number(value, f"{key}: {name}") for name, value in table.items()}


def _number(value: object, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _malformed(f"{what} is a number")
    number = Decimal(value)
    if not number.is_finite() or not 0 <= number <= MOST:
        raise _malformed(f"{what} is from 0 to {MOST}")
    return number


def _malformed(why: str) -> Malformed:
    hint = "see docs/operations/costs.md"
    return Malformed("the file of prices is malformed", why=why, hint=hint, code="PRICES-FILE")


def home_bytes(home: Path, blobs: Path) -> int:
    """Bytes on the disk of all files below a home, without its store: the ledger, logs, rows, keys. Raises
    Unavailable."""
    total = files = 0
    with disk_errors("the home was not measured"):
        for folder, folders, names in os.walk(home):
            folders[:] = [name for name in folders if Path(folder, name) != blobs]
            for name in names:
                files += 1
                if files > MAX_FILES:
                    raise _too_many(home)
                total += _allocated(Path(folder, name))
    return total


def _allocated(path: Path) -> int:
    """0 for a file that was removed meanwhile."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _too_many(home: Path) -> Malformed:
    return Malformed(f"{home} is not measured", why=f"it has more than {MAX_FILES} files beside its store")


def membership_costs(status: NodeStatus, beside_store: int, stated: PriceList) -> MembershipCosts:
    """The costs of a year. `beside_store`: bytes of the home without its store."""
    usage = status.usage
    seconds = usage.seconds if usage is not None else 0
    months = Decimal(12)
    stored = Decimal(status.store.bytes) / TERABYTE * months
    beside = Decimal(beside_store) / TERABYTE * months
    staff = _staff(stated)
    energy = None if stated.watts is None else stated.watts * YEAR_HOURS / 1000
    sent, received, cpu = (
        (usage.sent_bytes, usage.received_bytes, usage.cpu_milliseconds) if usage is not None else (None, None, None)
    )
    prices = stated.prices
    items = (
        CostItem("disk: store", stored, "TB months", "measured", prices.get("tb_month")),
        CostItem("disk: logs and rest", beside, "TB months", "measured", prices.get("tb_month")),
        CostItem("sent", _in_a_year(sent, seconds, TERABYTE), "TB", "measured", prices.get("tb_sent")),
        CostItem("received", _in_a_year(received, seconds, TERABYTE), "TB", "measured", prices.get("tb_received")),
        CostItem(CPU, _in_a_year(cpu, seconds, 3_600_000), "hours", "measured", None),
        CostItem("energy", energy, "kWh", "stated", prices.get("kwh")),
        CostItem(
            "staff",
            sum((hours for _, hours in staff), Decimal(0)),
            "hours",
            "table" if stated.hours is None else "stated",
            prices.get("hour"),
        ),
    )
    return MembershipCosts(seconds, stated.currency, items, staff)


def _staff(stated: PriceList) -> tuple[tuple[str, Decimal], ...]:
    if stated.hours is not None:
        return tuple(stated.hours.items())
    return tuple((task.name, task.year) for task in TASKS)


def _in_a_year(measured: int | None, seconds: int, unit: int) -> Decimal | None:
    """Extrapolated; None where nothing was measured."""
    if measured is None or seconds <= 0:
        return None
    return Decimal(measured) * YEAR_SECONDS / seconds / unit
