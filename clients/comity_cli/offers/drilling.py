"""A cut-off, rehearsed: everything is done but logging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comity.trust.errors import ComityError
from comity.trust.offers.records import CutOff, Redemption

from comity_cli.offers.counter import Counter, now

if TYPE_CHECKING:
    from comity_client.offers.market import HeldGrant


@dataclass(frozen=True)
class Step:
    """One thing that a cut-off takes: whether it went well, and how."""

    what: str
    well: bool
    how: str


def rehearse(counter: Counter, held: HeldGrant) -> list[Step]:
    """The steps of a cut-off, in order. One that fails does not keep the others from being tried."""
    view, made = held.view, held.commitment
    steps = [
        Step("the pact", made.grant.pact, f"{made.digest[:12]}, lent by {view.circle.name(view.offer.provider)}"),
        Step("its chain", view.state == "proven", view.why or f"proven, cosigned by {view.cosigners} members"),
        Step("its state", made.state == "accepted", made.state),
        Step("its window", any(p.start <= now() < p.end for p in made.grant.allocations), _window(held)),
        Step("what is left", any(made.left), ", ".join(f"{each:,}" for each in made.left) + f" {view.offer.measure}"),
    ]
    return [*steps, *_sign(counter, held)]


def _sign(counter: Counter, held: HeldGrant) -> list[Step]:
    """Sign the declaration, as a drill, and a redemption that nobody will ever record; check both as a node would."""
    view, made = held.view, held.commitment
    try:
        voice = counter.voice
        mine = voice.identity == made.grant.grantee
        steps = [Step("your key", mine, voice.label if mine else f"it speaks for {voice.label}, not the beneficiary")]
        declared = voice.say(CutOff(voice.identity, view.book.chain, made.digest, True, "drill"))
        asked = voice.say(Redemption(voice.identity, view.book.chain, made.digest, made.left, made.newest, "drill"))
    except ComityError as error:
        return [Step("your key", False, str(error))]
    for what, entry in (("the declaration", declared), ("a redemption", asked)):
        genuine = view.circle.by_identity(entry)
        how = {True: "signed, and anybody can tell that it is yours", None: "signed; nothing here proves your keys"}
        steps.append(Step(what, genuine is not False, how.get(genuine, "your keys are not those of the charter")))
    return steps


def _window(held: HeldGrant) -> str:
    from comity_cli.offers.rendering import when

    parts = held.commitment.grant.allocations
    return ", ".join(f"{when(part.start)} up to {when(part.end)}" for part in parts)
