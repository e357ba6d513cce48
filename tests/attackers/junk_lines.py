"""Attacks by one member that writes junk into its own log, which every other member's node mirrors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from attackers.attacker import Target, attacker
from attackers.forging import (
    Author,
    Identity,
    RawKey,
    Release,
    b64,
    named,
    observations,
    observe,
    sha256,
    signed,
    statement,
)
from attackers.records import RawNode
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
    target.member.say(*(padded(target.member.record_line, number) for number in range(600)))


@attacker("a thousand unproven lines of one name and version", "C3", by="member")
def one_version(target: Target) -> None:
    """A line of an identity whose inception is in no log."""
    who = Identity.made("nobody")
    for name in (target.known.unbound, target.known.bound):
        lines = [who.publish(name, RELEASE, [f"junk/parent-{number}@v1"]) for number in range(1_000)]
        target.member.say(*lines, objects=RELEASE.objects)


def wide_publication(number: int) -> bytes:
    """A `published` line of nearly the maximum size, by an unknown identity."""
    who = Identity.made(f"unknown {number}")
    subjects = [{"digest": {"sha256": sha256(b"%d" % at)}, "name": "x" * 900} for at in range(45)]
    said = json.loads(statement("published", who.by, ("", "0" * 64), {"name": f"junk/wide-{number}@v1"}))
    payload = json.dumps(said | {"subject": subjects}, sort_keys=True, separators=(",", ":")).encode()
    return signed(payload, who.keys)


@attacker(
    "four hundred wide publications of unknown identities", "C5", by="member", emits=lambda: [wide_publication(0)]
)
def wide_publications(target: Target) -> None:
    target.member.say(*(wide_publication(number) for number in range(400)))


@attacker("four thousand wide publications of unknown identities", "C5", by="member", dear=True)
def very_many_wide_publications(target: Target) -> None:
    target.member.say(*(wide_publication(number) for number in range(4_000)))


@attacker("a thousand small publications of unknown identities", "C5", by="member")
def small_publications(target: Target) -> None:
    for number in range(1_000):
        target.member.say(Identity.made(f"unknown {number}").publish(f"junk/small-{number}@v1", RELEASE))
    target.member.have(*RELEASE.objects)


@attacker("an observation of other bytes in a mirrored repository", "H3", by="member")
def other_observation(target: Target) -> None:
    """The node's own `observed` statement, about the same commit and about others, with other bytes."""
    release = Release(b"this is what I saw there\n")
    commits = (target.known.commit, "2e" * 20)
    lines = [
        observe(target.member.node, target.known.mirrored, commit, target.known.endpoint, release) for commit in commits
    ]
    objects = [part for line in lines for part in release.objects]
    target.member.say(*lines, objects=[*objects, observations(release), release.data])


@attacker("false news that a mirrored repository is deleted and changed", "H3", by="member")
def upstream_news(target: Target) -> None:
    known = target.known
    name = f"hf:{known.mirrored}@{known.commit}"
    for artifact, predicate in itertools.product(known.artifacts, ("upstream-gone", "upstream-changed")):
        body = {"endpoint": known.endpoint, "name": name, "at": 1, "now": "3d" * 20}
        target.member.say(target.member.node.say(predicate, (name, artifact), body))


@attacker("rival claims of every name, by the member itself", "N1", by="member")
def member_rivals(target: Target) -> None:
    release = Release(b"mine is older\n")
    names = (target.known.unbound, target.known.bound, f"{target.known.mirrored}@v1", f"{target.known.mirrored}@main")
    claims = [target.member.member.publish(name, release) for name in names]
    target.member.say(*claims, objects=[*release.objects, release.data])


@attacker("a second node with the name of another member's", "A1", by="member")
def name_of_another(target: Target) -> None:
    """The member binds nodes that do not run, with the names of honest nodes, and addresses for them."""
    for victim in target.victims:
        node = RawNode(f"paper-{victim.name}", victim.name)
        target.member.say(node.record(target.member.member), node.addresses(["127.0.0.1:9"], ["127.0.0.1:9"]))


@attacker("hundreds of bound nodes that do not run", "own", by="member")
def paper_nodes(target: Target) -> None:
    for number in range(100):
        node = RawNode(f"paper-{number}", f"paper-{number}.example")
        where = [f"127.0.0.1:{10_000 + number}"]
        target.member.say(node.record(target.member.member), node.addresses(where, where))


@attacker("one statement in many new envelopes", "own", by="member")
def repeated_statement(target: Target) -> None:
    who = Identity.made("says it again")
    line = who.advise(target.known.artifacts[0], "once more")
    target.member.say(who.inception, *(padded(line, number) for number in range(500)))


@attacker("one object named in many lines of the own log", "C2", by="member")
def objects_again(target: Target) -> None:
    who, data = Identity.made("names objects"), bytes(1 << 20)
    lines = [who.say("noted", ("", sha256(b"%d" % number)), {"n": number}, [named(data)] * 16) for number in range(20)]
    target.member.say(who.inception, *lines, objects=[data])


@attacker("objects that no node ever serves", "own", by="member")
def withheld_objects(target: Target) -> None:
    """Lines of the own log that name objects which its node does not serve."""
    lines = [
        target.member.member.say("noted", ("", sha256(b"%d" % n)), {}, [{"digest": sha256(b"gone %d" % n), "size": 9}])
        for n in range(50)
    ]
    target.member.say(*lines)


@attacker("lines that are no statements", "own", by="member", emits=lambda: NO_STATEMENTS)
def no_statements(target: Target) -> None:
    target.member.say(*NO_STATEMENTS)


def _no_statements() -> Iterator[bytes]:
    yield from (b"", b"{}", b"\x00" * 100, b"\xff" * 65_535, b"[" * 60_000, b'{"payload":"!!","payloadType":"x"}')
    yield b'{"payload":"' + b64(b"{" * 30_000).encode() + b'","payloadType":"application/vnd.in-toto+json"}'
    who = Identity.made("strange")
    for predicate in (
        "published",
        "observed",
        "hold",
        "offer",
        "grant",
        "intent",
        "rotated",
        "node-record",
        "advisory",
    ):
        yield who.say(predicate, ("", "0" * 64), {})
        yield who.say(predicate, ("", "0" * 64), {"x": [1] * 1_000})


NO_STATEMENTS: tuple[bytes, ...] = tuple(_no_statements())


@attacker("holds of artifacts that its node does not have", "own", by="member")
def false_holds(target: Target) -> None:
    """The node claims to hold every artifact, and answers that it has every file."""
    for artifact in target.known.artifacts:
        manifest = {"digest": artifact, "size": 100}
        body = {"manifest": manifest, "pieces": manifest}
        target.member.say(target.member.node.say("hold", ("", artifact), body, [manifest]))


@attacker("four hundred offers, and grants that contradict one another", "own", by="member")
def junk_offers(target: Target) -> None:
    """Chains without a beginning, whose records contradict one another."""
    lines = []
    for number in range(400):
        link = {"at": number, "chain": sha256(b"%d" % (number // 40)), "prev": None, "remaining": [1], "seq": number}
        predicate = ("offer", "grant", "pact", "accepted", "redeemed", "lapsed", "released")[number % 7]
        lines.append(target.member.node.say(predicate, ("", sha256(b"offer %d" % number)), link))
    target.member.say(*lines)


@attacker("answers to a request for compute that was not made to it", "own", by="member")
def foreign_grants(target: Target) -> None:
    for line in target.known.requests:
        for number, predicate in enumerate(("grant", "rejected", "lapsed", "accepted", "released")):
            link = {"at": number, "chain": target.known.offer or "0" * 64, "prev": None, "remaining": [0], "seq": 1}
            body = {**link, "request": sha256(line), "text": "no"}
            target.member.say(target.member.node.say(predicate, ("", sha256(line)), body))


@attacker("false statements that the publishers' keys are compromised", "own", by="member")
def lost_keys(target: Target) -> None:
    for publisher, _ in target.known.publishers:
        since = {"index": 0, "origin": target.victims[0].origin}
        body = {"key": "0" * 64, "kind": "key-compromise", "severity": "critical", "since": since, "text": "lost"}
        target.member.say(target.member.member.say("advisory", ("", publisher), body))


@attacker("rotations of other identities", "own", by="member")
def false_rotations(target: Target) -> None:
    """Rotations signed by keys that are no recovery keys."""
    thief = RawKey.of_seed("thief")
    key = {"ed25519": b64(thief.public)}
    body = {"cut": [], "home": "", "keys": [key], "prev": "0" * 64, "recovery": [], "seq": 1, "threshold": 1,
            "used": [key]}  # fmt: skip
    for identity, _ in (*target.known.publishers, *target.known.members):
        for number in range(64):
            said = statement("rotated", {"identity": identity}, ("", identity), {**body, "seq": number + 1})
            target.member.say(signed(said, (thief,)))


def bystanders(count: int) -> list[Author]:
    return [Identity.made(f"bystander {number}") for number in range(count)]


@attacker("statements about every artifact by a thousand identities", "C3", by="member", dear=True)
def crowd(target: Target) -> None:
    for who in bystanders(1_000):
        assert isinstance(who, Identity)
        target.member.say(who.inception, *(who.advise(artifact, "me too") for artifact in target.known.artifacts))
