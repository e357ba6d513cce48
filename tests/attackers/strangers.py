"""Attacks by strangers, and by identities that an operator allows to publish: statements and requests at open ports."""

from __future__ import annotations

import itertools
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from support.raw_bytes import message

from attackers.attacker import Target, Victim, attacker
from attackers.calling import SOURCES, Caller, calling
from attackers.forging import (
    Identity,
    RawKey,
    Release,
    b64,
    canonical,
    envelope,
    named,
    sha256,
    signed,
    statement,
)
from attackers.records import RawNode, rotation

ONE = Identity.made("a stranger")
RELEASE = Release(b"nobody asked for this\n" * 100)


def padded(line: bytes, number: int, *, wide: bool = False) -> bytes:
    """The same statement in another envelope, with signatures of keys that do not exist: in turn as many as an earlier
    version read (32), and as many as are read now (14), each as long as an Ed25519 signature; `wide` ones fill the
    line.
    """
    envelope: dict[str, Any] = json.loads(line)
    room = (14 if number % 2 else 28) - len(envelope["signatures"])
    length = max(64, (62_000 - len(line)) // room * 3 // 4 - 100) if wide else 64
    junk = [
        {"keyid": sha256(b"%d %d" % (number, at)), "sig": b64((b"%064d" % at) * (length // 64))} for at in range(room)
    ]
    envelope["signatures"] = sorted([*envelope["signatures"], *junk], key=lambda item: item["keyid"])
    return canonical(envelope)


def copies(line: bytes, count: int, *, wide: bool = False) -> Iterator[bytes]:
    return (padded(line, number, wide=wide) for number in range(count))


def hand_in(
    target: Target,
    lines: Iterable[bytes],
    objects: Sequence[bytes] = (),
    *,
    each: int = 16,
    at: Sequence[Victim] = (),
) -> None:
    """Submit lines at the open ports of `at`, by default of every victim, `each` of them in one call."""
    victims = at or target.victims
    made = list(lines)
    batches = [made[at : at + each] for at in range(0, len(made), each)]
    with ThreadPoolExecutor(len(victims)) as pool:
        list(pool.map(lambda victim: _hand_in(target, victim, batches, objects), victims))


def _hand_in(target: Target, victim: Victim, batches: list[list[bytes]], objects: Sequence[bytes]) -> None:
    with calling(target, victim) as caller:
        for batch in batches:
            if caller.submit(batch, objects) is None:
                for line in batch[:1]:
                    caller.submit([line], objects)


@attacker(
    "copies of a public draft, padded with junk signatures",
    "C1",
    by="stranger",
    emits=lambda: copies(ONE.inception, 4, wide=True),
)
def padded_drafts(target: Target) -> None:
    for draft in target.known.drafts:
        hand_in(target, copies(draft, 80, wide=True))


@attacker("copies of the members' public inceptions", "H1", by="stranger", emits=lambda: copies(ONE.inception, 3))
def padded_inceptions(target: Target) -> None:
    """Those of each member at its own node, where they use up the member's quota."""
    for victim, (_, inception) in zip(target.victims, target.known.members, strict=True):
        hand_in(target, copies(inception, 256), each=32, at=[victim])


@attacker("copies of a public request for compute", "H1", by="stranger")
def padded_requests(target: Target) -> None:
    for request in target.known.requests:
        hand_in(target, copies(request, 62), each=31, at=target.victims[1:2])


def inception_with_objects(number: int, data: bytes, times: int) -> bytes:
    body = {"record": ONE.record, "number": number}
    return signed(statement("inception", ONE.by, (ONE.label, ONE.id), body, [named(data)] * times), ONE.keys)


OBJECT = bytes(1 << 18)


@attacker(
    "inceptions that list one object sixty-four times",
    "C2",
    by="identity",
    emits=lambda: [inception_with_objects(0, b"x", 64)],
)
def repeated_objects(target: Target) -> None:
    plain = signed(statement("inception", ONE.by, (ONE.label, ONE.id), {"record": ONE.record},
                             [named(OBJECT)] * 64), ONE.keys)  # fmt: skip
    hand_in(target, [*copies(plain, 5), *(inception_with_objects(number, OBJECT, 64) for number in range(5))],
            [OBJECT], each=1)  # fmt: skip


@attacker("a rival claim of an unbound name", "N1", by="identity", emits=lambda: [ONE.publish("acme/tiny@v9", RELEASE)])
def rival_name(target: Target) -> None:
    """Valid claims of the name that is bound to no publisher: the existing version, and a newer one."""
    repository = target.known.unbound.partition("@")[0]
    claims = [ONE.publish(f"{repository}@{version}", RELEASE) for version in ("v1", "v2", "v99")]
    publish(target, ONE, claims)


@attacker("a publication under a mirrored repository's name", "H4", by="identity")
def mirrored_name(target: Target) -> None:
    publish(target, ONE, [ONE.publish(f"{target.known.mirrored}@{v}", RELEASE) for v in ("v1", "main")])


@attacker("a publication in a namespace that the charter gives to another", "own", by="identity")
def bound_name(target: Target) -> None:
    repository = target.known.bound.partition("@")[0]
    publish(target, ONE, [ONE.publish(f"{repository}@{version}", RELEASE) for version in ("v1", "v2", "v99")])


def publish(target: Target, who: Identity, claims: Sequence[bytes]) -> None:
    """The steps of a publisher, at every victim: lines, objects, and the file."""
    for victim in target.victims:
        with calling(target, victim) as caller:
            for claim in claims:
                _publish(caller, [who.inception, claim])


def _publish(caller: Caller, lines: list[bytes]) -> None:
    answered = caller.submit(lines, RELEASE.objects)
    if answered and 2 in answered:
        (submission,) = answered[1]
        assert isinstance(submission, bytes)
        caller.upload(submission, RELEASE.data, [RELEASE.data])
        caller.submit(lines, RELEASE.objects)


@attacker("submissions that are never completed", "own", by="identity")
def pending_submissions(target: Target) -> None:
    """Sixty releases whose files are never uploaded."""
    for victim in target.victims:
        with calling(target, victim) as caller:
            for number in range(60):
                release = Release(b"file %d that never comes" % number)
                caller.submit([ONE.inception, ONE.publish(f"junk/pending-{number}@v1", release)], release.objects)


@attacker("uploads that are cut off repeatedly", "M5", by="identity")
def abandoned_uploads(target: Target) -> None:
    release = Release(b"all but the end of this comes, and then once more\n" * 20_000)
    for victim in target.victims:
        with calling(target, victim) as caller:
            answered = caller.submit([ONE.inception, ONE.publish("junk/abandoned@v1", release)], release.objects)
            if not answered:
                continue
            for _ in range(4):
                caller.upload(bytes(answered[1][0]), release.data, [release.data[:600_000]])


@attacker("uploads of one byte at a time", "M5", by="addresses")
def dribbled_uploads(target: Target) -> None:
    """Eight uploads at each victim, a byte at a time, for as long as the others work."""
    release = Release(b"this comes one byte at a time\n" * 20_000)
    with ThreadPoolExecutor(8 * len(target.victims)) as pool:
        for number, victim in itertools.product(range(8), target.victims):
            pool.submit(_dribble, target, victim, number, release)
        target.hold()


def _dribble(target: Target, victim: Victim, number: int, release: Release) -> None:
    with calling(target, victim, source=SOURCES[number % len(SOURCES)]) as caller:
        answered = caller.submit([ONE.inception, ONE.publish("junk/dribbled@v1", release)], release.objects)
        if answered and 2 in answered:
            caller.upload(bytes(answered[1][0]), release.data, _drops(target, release.data))


def _drops(target: Target, data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        if target.ended.wait(0.1):
            return
        yield data[at : at + 1]


RECOVERY = RawKey.of_seed("recovery of a stranger")
ROTATING = Identity.made("rotating", recovery=(sha256(canonical({"ed25519": b64(RECOVERY.public)})),))


@attacker("copies of a rotation", "M4", by="identity", emits=lambda: [rotation(ROTATING, RECOVERY, ONE.keys[0])])
def padded_rotations(target: Target) -> None:
    """One identity warns of every artifact, changes its keys once, and submits the rotation five hundred times."""
    line = rotation(ROTATING, RECOVERY, RawKey.of_seed("new key of a stranger"))
    warnings = [ROTATING.advise(artifact, "beware") for artifact in target.known.artifacts]
    hand_in(target, [ROTATING.inception, *warnings])
    hand_in(target, copies(line, 512), each=32, at=target.victims[:1])


@attacker("rotations that conflict", "own", by="identity")
def conflicting_rotations(target: Target) -> None:
    lines = [rotation(ROTATING, RECOVERY, RawKey.of_seed(f"new key {number}")) for number in range(64)]
    hand_in(target, [ROTATING.inception, *lines], each=16, at=target.victims[:1])


ACCEPTED = (ONE, ROTATING)
"""Operators allow these identities to publish: an attacker by an `identity` signs as one of them."""


def card(number: int) -> list[bytes]:
    """A request to join: a member's inception, its node's record, and the addresses."""
    who = Identity.made(f"newcomer {number}", kind="member", label=f"Newcomer {number}")
    node = RawNode(f"newcomer-{number}", f"node-{number}.example")
    return [who.inception, node.record(who), node.addresses(["127.0.0.1:9"], ["127.0.0.1:9"])]


@attacker("two hundred and fifty-six requests to join", "M3", by="stranger", emits=lambda: card(0))
def join_requests(target: Target) -> None:
    cards = [card(number) for number in range(256)]
    for victim in target.victims:
        with calling(target, victim) as caller:
            for lines in cards:
                caller.ask("Ask", *((1, line) for line in lines))


@attacker("public lines of others, submitted again to other nodes", "own", by="stranger")
def replayed_lines(target: Target) -> None:
    """All lines of one victim's log are sent to the others, in reverse order."""
    for victim in target.victims:
        with calling(target, victim) as caller:
            lines = caller.lines(victim.origin)
        hand_in(target, reversed(lines), each=8)


@attacker("statements of unknown kinds about everything", "own", by="identity")
def unknown_predicates(target: Target) -> None:
    about = (*target.known.artifacts, *(who for who, _ in target.known.members))
    lines = [ONE.say(f"noted-{number}", ("", subject), {"text": "?"}) for subject in about for number in range(20)]
    hand_in(target, [ONE.inception, *lines], each=32, at=target.victims[2:])


@attacker("warnings in a publisher's name", "own", by="stranger")
def forged_warnings(target: Target) -> None:
    """Withdrawals signed by another key, and a signature copied from another statement."""
    lines = []
    for (publisher, inception), artifact in itertools.product(target.known.publishers, target.known.artifacts):
        body = {"kind": "yank", "severity": "critical", "text": "withdrawn"}
        payload = statement("advisory", {"identity": publisher}, ("", artifact), body)
        taken = [(item["keyid"], b64decode(item["sig"])) for item in json.loads(inception)["signatures"]]
        lines += [signed(payload, ONE.keys), envelope(payload, taken)]
    hand_in(target, lines, each=1)


@attacker("calls whose bytes are no messages", "own", by="stranger", emits=lambda: JUNK)
def junk_calls(target: Target) -> None:
    for victim in target.victims:
        with calling(target, victim) as caller:
            for call, junk in itertools.product(("Submit", "Resolve", "GetClaims", "Ask", "Stat"), JUNK):
                try:
                    list(caller.start(call, junk, 5))
                except grpc.RpcError:
                    continue


JUNK: tuple[bytes, ...] = (
    b"\xff" * 100,
    b"\x0a\xff\xff\xff\xff\x0f",
    message((1, b"{" * 60_000)),
    message((1, b'{"payload":"' + b"A" * 60_000 + b'"}')),
    message(*((1, b"") for _ in range(5_000))),
    message((1, b"\x00" * (1 << 18))),
)
