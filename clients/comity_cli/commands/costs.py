"""`comity costs`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from comity.bounded_file import read_bounded
from comity.trust.frozen import frozen

from comity_cli.command import Command, examples, output
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.node_view import span
from comity_cli.nodes import home_option

if TYPE_CHECKING:
    from comity.node.maintenance.membership_costs import CostItem, MembershipCosts, PriceList

Number = Annotated[str, "A decimal number, in full."]


@frozen
class CostRow:
    """An amount of a year, its price and what it costs; null where it is not known."""

    name: str
    amount: Number | None
    unit: str
    source: Annotated[str, {"enum": ["measured", "stated", "table"]}]
    price: Number | None
    cost: Number | None


@frozen
class StaffRow:
    """Hours of people in a year for one task."""

    task: str
    hours: Number


@document("costs")
class CostsDocument:
    """What membership costs in a year, as `comity costs --json` prints it.

    Traffic and CPU are extrapolated from `measured_seconds` to a year; `total` is the sum of the costs that are known,
    and null where no price is.
    """

    measured_seconds: int
    currency: str
    items: tuple[CostRow, ...]
    staff: tuple[StaffRow, ...]
    total: Number | None
    without_price: tuple[str, ...]


@examples("comity costs --node /var/lib/comity", "comity costs --prices prices.toml --node node-ch --json")
@click.command(cls=Command, name="costs", short_help="Show what membership costs in a year, from your own node.")
@click.option("--prices", type=FILE, help="Your prices, watts and hours of people.")
@home_option("Your node, by its home. Default: here.")
def command(prices: Path | None, home: Path) -> None:
    """Show what your node and its people need in a year: disk, traffic, CPU, energy and hours of staff. Disk is what is
    held now. Traffic and CPU are what the running node measured since it started, extrapolated to a year. Energy is the
    watts that you state. Hours of staff are the estimates of a table, which no member has measured, unless you state
    your own. There are no prices but yours:

    \b
        currency = "CHF"
        watts = 150
        [prices]
        tb_month = 20.5
        kwh = 0.27
        hour = 95
    """
    from comity.node.maintenance.membership_costs import (
        MAX_PRICES_BYTES,
        PriceList,
        home_bytes,
        membership_costs,
        parse_prices,
    )
    from comity_client.node_home import blobs_folder
    from comity_client.own_node import operator_status, own_socket

    stated = parse_prices(read_bounded(prices, MAX_PRICES_BYTES)) if prices is not None else PriceList()
    status = operator_status(own_socket(str(home)))
    found = membership_costs(status, home_bytes(home, blobs_folder(home)), stated)
    _show(found, stated)
    output().answer(_document(found))


def _show(found: MembershipCosts, stated: PriceList) -> None:
    from comity.node.maintenance.membership_costs import LEAST_SECONDS

    out = output()
    cost = f"{found.currency} a year" if found.currency else "cost"
    rows = [
        (item.name, amount_text(item.amount), item.unit, item.source, amount_text(item.price), amount_text(item.cost))
        for item in found.items
    ]
    out.table(("item", "a year", "", "", "price", cost), [*rows, *_total(found)])
    out.table(("staff", "hours a year"), [(task, amount_text(hours)) for task, hours in found.staff])
    if not found.seconds:
        out.warn("this node measures no traffic and no CPU time: its software is older")
    elif found.seconds < LEAST_SECONDS:
        out.warn(f"measured for {span(found.seconds)} only: traffic and CPU of a year may be quite different")
    else:
        out.say(f"Traffic and CPU: measured for {span(found.seconds)}, since the node started, and extrapolated.")
    if stated.hours is None:
        out.say("Hours of staff are estimates of the table in docs/operations/costs.md; no member has measured them.")
    if stated.watts is None:
        out.hint("state the watts of your machines in a file: comity costs --prices FILE")
    elif found.unpriced:
        out.say(f"Without a price: {', '.join(found.unpriced)}.")


def _total(found: MembershipCosts) -> list[tuple[str, ...]]:
    if all(item.cost is None for item in found.items):
        return []
    return [("together" if not found.unpriced else "together, with a price", "", "", "", "", amount_text(found.total))]


def amount_text(number: Decimal | None) -> str:
    """`1,051`, `12.3`, `0.004`; `-` for what is not known."""
    if number is None:
        return "-"
    if number >= 100 or number == number.to_integral_value():
        return f"{number:,.0f}"
    if number < Decimal("0.001"):
        return "<0.001"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}" if number >= 1 else f"{number:.2g}"


def _document(found: MembershipCosts) -> CostsDocument:
    rows = (_row(item) for item in found.items)
    staff = (StaffRow(task, f"{hours:f}") for task, hours in found.staff)
    priced = any(item.cost is not None for item in found.items)
    total = f"{found.total:f}" if priced else None
    return CostsDocument(found.seconds, found.currency, tuple(rows), tuple(staff), total, found.unpriced)


def _row(item: CostItem) -> CostRow:
    amount, price, cost = (None if each is None else f"{each:f}" for each in (item.amount, item.price, item.cost))
    return CostRow(item.name, amount, item.unit, item.source, price, cost)
