"""Who owes whom, with the evidence of each line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from comity_cli.command import output

if TYPE_CHECKING:
    from comity.trust.offers.amounts import Balance
    from comity_client.offers.market import IdentityResolver


def show_balances(kept: Sequence[Balance], circle: IdentityResolver) -> None:
    """Each balance of two members and one unit. What the lender alone says is claimed, and in nobody's net."""
    out = output()
    for each in kept:
        out.say(
            f"{circle.name(each.first)} and {circle.name(each.second)}: {each.unit.accelerator} {each.unit.measure}"
        )
        out.fact("lent", f"{each.lent:,} by the first, {each.borrowed:,} by the second")
        out.fact("net", _net(each.net, circle.name(each.first), circle.name(each.second)))
        if each.claimed:
            out.fact("claimed", f"{each.claimed:,} by the lender alone: in nobody's net until it is agreed to")
        for line in each.lines:
            out.say(f"    usage {line.usage[:12]} of grant {line.grant[:12]}, "
                    + (f"agreed by {line.agreement[:12]}" if line.agreement else "not agreed to"))  # fmt: skip
    if not kept:
        out.say("Nobody has used anybody's machines yet, as far as is known here.")
    listed = [
        {"first": each.first, "second": each.second, "measure": each.unit.measure, "accelerator": each.unit.accelerator,
         "lent": each.lent, "borrowed": each.borrowed, "claimed": each.claimed, "net": each.net,
         "lines": [{"grant": line.grant, "usage": line.usage, "agreement": line.agreement} for line in each.lines]}
        for each in kept
    ]  # fmt: skip
    out.document("balance", {"balances": listed})


def _net(net: int, first: str, second: str) -> str:
    if net == 0:
        return "nobody owes anybody"
    return f"{second if net > 0 else first} owes {first if net > 0 else second} {abs(net):,}"
