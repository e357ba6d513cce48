"""One member writes what it likes into its own log, and every other member's node mirrors it."""

from __future__ import annotations

from attackers.attacker import Target, attacker
from attackers.forging import Identity, Release, signed, statement
from attackers.strangers import padded

RELEASE = Release(b"junk\n")


def false_inception(victim: str, number: int) -> bytes:
    """An inception in another identity's name, of a record that is not its own."""
    liar = Identity.made(f"false {number}")
    said = statement("inception", {"identity": victim}, (liar.label, victim), {"record": liar.record})
    return signed(said, liar.keys)


@attacker("junk inceptions that name the publishers", "C3", by="member", emits=lambda: [false_inception("0" * 64, 1)])
def false_inceptions(target: Target) -> None:
    for publisher, _ in target.known.publishers:
        target.member.say(*(false_inception(publisher, number) for number in range(206)))


@attacker("many publications under one name", "C3", by="member")
def many_claimants(target: Target) -> None:
    for name in (target.known.unbound, target.known.bound):
        for number in range(257):
            who = Identity.made(f"claimant {number}")
            target.member.say(who.inception, who.publish(name, RELEASE), objects=RELEASE.objects)


@attacker("warnings by forty authors about one artifact", "C3", by="member")
def many_authors(target: Target) -> None:
    for artifact in target.known.artifacts:
        for number in range(40):
            who = Identity.made(f"author {number}")
            target.member.say(who.inception, who.advise(artifact, "a warning"))


@attacker("copies of a public node-record", "C3", by="member")
def copied_node_records(target: Target) -> None:
    target.member.say(*(padded(target.member.record_line, number, signatures=14) for number in range(600)))
