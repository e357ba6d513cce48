"""Balances of members, with the usage lines of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from comity_cli.command import output

if TYPE_CHECKING:
    from comity.trust.offers.amounts import Balance
    from comity_client.offers.market import IdentityResolver


def show_balances(found: Sequence[Balance], identities: IdentityResolver) -> None:
    """Print each balance of two members and one unit. Usage that the borrower has not agreed to is not in the net."""
    out = output()
    for each in found:
        first, second = identities.name(each.first), identities.name(each.second)
        out.say(f"{first} and {second}: {each.unit.accelerator} {each.unit.measure}")
        out.fact("lent", f"{each.lent:,} by the first, {each.borrowed:,} by the second")
        out.fact("net", _net(each.net, first, second))
        if each.claimed:
            out.fact("claimed", f"{each.claimed:,} by the lender only: not in the net until the borrower agrees")
        for line in each.lines:
            out.say(f"    usage {line.usage[:12]} of grant {line.grant[:12]}, "
                    + (f"agreed by {line.agreement[:12]}" if line.agreement else "not agreed to"))  # fmt: skip
    if not found:
        out.say("No usage is known.")
    listed = [
        {"first": each.first, "second": each.second, "measure": each.unit.measure, "accelerator": each.unit.accelerator,
         "lent": each.lent, "borrowed": each.borrowed, "claimed": each.claimed, "net": each.net,
         "lines": [{"grant": line.grant, "usage": line.usage, "agreement": line.agreement} for line in each.lines]}
        for each in found
    ]  # fmt: skip
    out.document("balance", {"balances": listed})


def _net(net: int, first: str, second: str) -> str:
    if net == 0:
        return "balanced"
    return f"{second if net > 0 else first} owes {first if net > 0 else second} {abs(net):,}"
