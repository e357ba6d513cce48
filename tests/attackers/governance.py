"""Attacks that try to stop, split or steer the decisions of the members. The lines are those of `charter`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from attackers import charter
from attackers.attacker import Target, attacker
from attackers.calling import calling
from attackers.forging import Author, Identity, canonical, opened, sha256
from attackers.strangers import hand_in

WHO = Identity.made("wants a seat", kind="member")
BODIES = tuple(sha256(b"no body %d" % number) for number in range(8))


@attacker("copies of a public draft, each as long as a line may be", "C1", by="stranger")
def wide_drafts(target: Target) -> None:
    for draft in target.known.drafts:
        hand_in(target, charter.copies(draft, 80))


@attacker("copies of a public draft whose signatures do not hold", "C1", by="stranger")
def unsigned_drafts(target: Target) -> None:
    for draft in target.known.drafts:
        hand_in(target, (charter.unsigned(draft, number) for number in range(300)), each=4)


@attacker("copies of every vote, as soon as it is public", "C1", by="stranger")
def copied_votes(target: Target) -> None:
    """Padded copies, submitted to the voter's own node."""
    seen: set[bytes] = set()
    target.ready.set()
    while not target.ended.wait(0.2):
        for victim in target.victims:
            with calling(target, victim) as caller:
                found = [line for located in caller.ask("GetProceedings", patience=3) for line in located.get(3, [])]
                for line in found:
                    if isinstance(line, bytes) and line not in seen and _is_vote(line):
                        seen.add(line)
                        for copy in charter.copies(line, 10):
                            caller.submit([copy])
                            seen.add(copy)


def _is_vote(line: bytes) -> bool:
    return opened(line)["predicateType"].split(":")[2] in ("intent", "ratified", "consented", "draft")


@attacker("conflicting votes", "own", by="member", emits=lambda: _votes(WHO, "0" * 64))
def contradictory_votes(target: Target) -> None:
    bodies = (sha256(target.known.body), *BODIES)
    target.member.say(
        *charter.contradictions(target.member.member, target.known.prev, _epoch(target), bodies, range(1, 6))
    )


def _votes(who: Identity, prev: str) -> Iterator[bytes]:
    return charter.contradictions(who, prev, 1, BODIES[:2], range(1, 3))


def _epoch(target: Target) -> int:
    epoch = json.loads(target.known.body)["epoch"]
    assert isinstance(epoch, int)
    return epoch


@attacker("votes in rounds that no other member is in", "own", by="member")
def late_rounds(target: Target) -> None:
    target.member.say(
        *charter.contradictions(
            target.member.member, target.known.prev, _epoch(target), BODIES[:2], (1_000, 1 << 40, (1 << 53) - 1)
        )
    )


@attacker("three hundred drafts by one member", "own", by="member")
def many_drafts(target: Target) -> None:
    """Each has a different body: the proposed one with a changed number."""
    bodies = []
    for number in range(300):
        body = json.loads(target.known.body)
        body["policy"]["min_copies"] = 2 + number
        bodies.append(canonical(body))
    lines = [
        charter.draft(target.member.member, target.known.federation, target.known.prev, body, "?") for body in bodies
    ]
    target.member.say(*lines, objects=bodies)


@attacker("consents and requests to leave of identities without a seat", "own", by="stranger")
def made_up_consents(target: Target) -> None:
    lines = []
    for who in charter.made_up_members(64):
        body = {"body": sha256(target.known.body), "federation": target.known.federation, "prev": target.known.prev}
        lines += [who.inception, who.say("consented", ("charter", body["body"]), body), who.say("left", ("", ""), body)]
    hand_in(target, lines, each=3)


@attacker("votes in the names of the others", "own", by="member")
def forged_votes(target: Target) -> None:
    """Votes in the names of the honest members for another body, signed by the hostile member."""
    for identity, _ in target.known.members:
        as_other = Impersonated(identity, target)
        target.member.say(*charter.contradictions(as_other, target.known.prev, _epoch(target), BODIES[:1], (1, 2, 3)))


class Impersonated(Author):
    """The name of another member, with the signatures of the hostile one."""

    def __init__(self, identity: str, target: Target) -> None:
        self.by = {"identity": identity}
        self.keys = target.member.governance
