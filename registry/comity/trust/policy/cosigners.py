"""`[cosigners]`: how many other members must have seen the statement in its log, and where."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from comity.trust.charter import Body, Member
from comity.trust.errors import Malformed
from comity.trust.jurisdictions import COUNTRIES, meant
from comity.trust.policy.table import Table, wrong

PUBLISHER: Final = "publisher"


@dataclass(frozen=True, slots=True)
class CosignerRule:
    """`at_least` distinct members, in `jurisdictions` distinct jurisdictions, none of them in `outside`."""

    at_least: int = 2
    jurisdictions: int = 0
    outside: tuple[str, ...] = (PUBLISHER,)
    post_quantum: bool = False


def read_cosigners(table: Table, pins: Sequence[Body]) -> CosignerRule:
    """Raises Malformed (POLICY-SYNTAX), also for a code that is no country's and that no pinned body uses: it would
    exclude nobody."""
    known = {member.jurisdiction for body in pins for member in body.members}
    default = CosignerRule()
    rule = CosignerRule(
        at_least=table.take("at_least", int, default.at_least),
        jurisdictions=table.take("jurisdictions", int, default.jurisdictions),
        outside=table.each("outside", lambda code: _excluded(code, known), default.outside),
        post_quantum=table.take("post_quantum", bool, default.post_quantum),
    )
    table.done()
    if rule.at_least < 0 or rule.jurisdictions < 0:
        raise wrong(table.what, "a count is negative")
    return rule


def _excluded(code: str, known: Set[str]) -> str:
    if code == PUBLISHER or code in COUNTRIES or code in known:
        return code
    guess = meant(code, (*known, PUBLISHER))
    raise Malformed(
        f"{code[:40]!r} is no jurisdiction",
        why="neither a country's code of ISO 3166-1, nor a name that a pinned charter uses",
        hint=f'write "{guess}"'
        if guess
        else 'write two capital letters, such as "CH", or pin the charter that uses it',
    )


def check_reachable(rule: CosignerRule, pins: Sequence[Body], table: Table) -> None:
    """Raises Malformed where the pinned charters have not so many members that count, whatever the evidence."""
    best = most_cosigners(rule, pins)
    if not pins or best is None:
        return
    wanted = f"{rule.at_least} cosigners in {max(rule.jurisdictions, 1)} jurisdictions"
    raise table.wrong(
        "at_least" if rule.at_least > best[0] else "jurisdictions",
        f"it can never match: {wanted} are asked for, and the pinned charters have at most {best[0]} in {best[1]}, "
        "outside of what is excluded and without the log's own member",
        f"set at_least to {best[0]} and jurisdictions to {best[1]} or less, or exclude fewer in outside",
    )


def most_cosigners(rule: CosignerRule, pins: Sequence[Body]) -> tuple[int, int] | None:
    """The best that could be had where it is too little: members that count, and their jurisdictions; else None.

    Tried for the log of each member, and for a publisher in no member's jurisdiction.
    """
    seats = _seats(pins)
    found = [_countable(rule, writer, seats) for writer in seats] or [()]
    sizes = [(len(countable), len({seat.jurisdiction for seat in countable})) for countable in found]
    enough = any(count >= rule.at_least and codes >= rule.jurisdictions for count, codes in sizes)
    return None if enough else max(sizes)


def _seats(pins: Sequence[Body]) -> list[Member]:
    """Each active member once, over all pinned bodies."""
    return list({seat.lineage: seat for body in pins for seat in body.active}.values())


def _countable(rule: CosignerRule, writer: Member, seats: list[Member]) -> tuple[Member, ...]:
    excluded = {code for code in rule.outside if code != PUBLISHER}
    excluded |= {writer.jurisdiction} if PUBLISHER in rule.outside else set()
    return tuple(seat for seat in seats if seat is not writer and seat.jurisdiction not in excluded)
