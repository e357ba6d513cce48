"""Attacks by identities that say much: warnings that should hide those of publishers, and names that should fill
lists."""

from __future__ import annotations

from collections.abc import Iterator

from attackers.attacker import Target, attacker
from attackers.calling import calling
from attackers.forging import Identity, Release
from attackers.strangers import hand_in

SAYS = 20
"""Warnings of each kind about each subject: more, with those of all subjects, than an answer has of others."""
NAMES = 150
TINY = Release(b"8 bytes\n")
FILLER = Identity.made("an identity with many names")


def warnings(target: Target) -> Iterator[bytes]:
    """Each warning about an artifact or a publisher is of another identity, which is logged just before."""
    subjects = (*target.known.artifacts, *(identity for identity, _ in target.known.publishers))
    for number in range(SAYS):
        for subject in subjects:
            who = Identity.made(f"warner {number} of {subject}")
            yield from (who.inception, who.advise(subject, f"number {number}", kind="vulnerability"))


@attacker(
    "warnings of a fresh identity each about every artifact and publisher",
    "own",
    by="identity",
    emits=lambda: [FILLER.advise("0" * 64, "beware", kind="vulnerability")],
)
def hidden_warnings(target: Target) -> None:
    hand_in(target, warnings(target), each=32)


@attacker(
    "a hundred and fifty names for one tiny artifact",
    "own",
    by="identity",
    emits=lambda: [FILLER.publish("aa/0@v1", TINY)],
)
def filled_lists(target: Target) -> None:
    """Names that sort before those of others, under one file of eight bytes."""
    claims = [FILLER.publish(f"aa/{number}@v1", TINY) for number in range(NAMES)]
    for victim in target.victims:
        with calling(target, victim) as caller:
            answered = caller.submit([FILLER.inception, claims[0]], TINY.objects)
            if answered and 2 in answered:
                submission = answered[1][0]
                assert isinstance(submission, bytes)
                caller.upload(submission, TINY.data, [TINY.data])
            for start in range(0, NAMES, 16):
                caller.submit([FILLER.inception, *claims[start : start + 16]], TINY.objects)
