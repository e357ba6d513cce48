"""Drill of a cut-off: every step except logging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comity.trust.errors import ComityError
from comity.trust.offers.records import CutOff, Redemption

from comity_cli.offers.context import OfferContext, now
from comity_cli.offers.rendering import describe_amounts, when

if TYPE_CHECKING:
    from comity_client.offers.offer_client import FoundGrant


@dataclass(frozen=True)
class Step:
    """One step of a cut-off: whether it succeeded, and details. The field names are keys of the JSON document."""

    what: str
    well: bool
    how: str


def run_drill(context: OfferContext, found: FoundGrant) -> list[Step]:
    """The steps of a cut-off, in order. A failed step does not stop the others."""
    view, grant_state = found.view, found.grant_state
    steps = [
        Step(
            "the pact",
            grant_state.grant.pact,
            f"{grant_state.digest[:12]}, lent by {view.identities.name(view.offer.provider)}",
        ),
        Step("its chain", view.status == "proven", view.why or f"proven, cosigned by {view.cosigners} members"),
        Step("its state", grant_state.state == "accepted", grant_state.state),
        _window(found),
        Step(
            "what is left",
            any(grant_state.left),
            describe_amounts(grant_state.left, view.offer.measure),
        ),
    ]
    return [*steps, *_sign(context, found)]


def _sign(context: OfferContext, found: FoundGrant) -> list[Step]:
    """Sign a cut-off marked as a drill and a redemption that is never logged, and check both as a node would."""
    view, grant_state = found.view, found.grant_state
    try:
        signer = context.signer
        mine = signer.identity == grant_state.grant.grantee
        steps = [
            Step("your key", mine, signer.label if mine else f"it belongs to {signer.label}, not to the beneficiary")
        ]
        declared = signer.sign(CutOff(signer.identity, view.state.chain, grant_state.digest, True, "drill"))
        asked = signer.sign(
            Redemption(
                signer.identity, view.state.chain, grant_state.digest, grant_state.left, grant_state.newest, "drill"
            )
        )
    except ComityError as error:
        return [Step("your key", False, str(error))]
    for what, entry in (("the declaration", declared), ("a redemption", asked)):
        genuine = view.identities.by_identity(entry)
        how = {True: "signed, with keys that others can verify", None: "signed; nothing here proves your keys"}
        steps.append(Step(what, genuine is not False, how.get(genuine, "your keys are not those of the charter")))
    return steps


def _window(found: FoundGrant) -> Step:
    """Whether a part of the pact could be used now, and its intervals."""
    at, parts = now(), found.grant_state.grant.allocations
    intervals = ", ".join(f"{when(part.start)} up to {when(part.end)}" for part in parts)
    if any(part.start <= at < part.end for part in parts):
        return Step("its window", True, intervals)
    why = "not begun" if any(at < part.start for part in parts) else "over"
    return Step("its window", False, f"{intervals}: {why}")
