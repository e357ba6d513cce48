"""Strangers, and identities that some operator lets publish: what they hand in at open ports and ask for there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from support.raw_bytes import message

from attackers.attacker import Target, attacker
from attackers.calling import Caller, calling
from attackers.forging import Identity, Release, b64, canonical, named, sha256, signed, statement

ONE = Identity.made("a stranger")
RELEASE = Release(b"nobody asked for this\n" * 100)


def padded(line: bytes, number: int, *, signatures: int = 28) -> bytes:
    """The same statement in another envelope: with signatures of keys that do not exist."""
    envelope: dict[str, Any] = json.loads(line)
    room = signatures - len(envelope["signatures"])
    junk = [{"keyid": sha256(b"%d %d" % (number, at)), "sig": b64(b"%064d" % at)} for at in range(room)]
    envelope["signatures"] = sorted([*envelope["signatures"], *junk], key=lambda item: item["keyid"])
    return canonical(envelope)


def copies(line: bytes, count: int) -> Iterator[bytes]:
    return (padded(line, number) for number in range(count))


def hand_in(target: Target, lines: Iterable[bytes], objects: Sequence[bytes] = (), *, each: int = 16) -> None:
    """Hand lines in at every victim's open port, several at once."""
    made = list(lines)
    batches = [made[at : at + each] for at in range(0, len(made), each)]
    with ThreadPoolExecutor(len(target.victims)) as pool:
        list(pool.map(lambda victim: _hand_in(target, victim, batches, objects), target.victims))


def _hand_in(target: Target, victim: Any, batches: list[list[bytes]], objects: Sequence[bytes]) -> None:
    with calling(target, victim) as caller:
        for batch in batches:
            if caller.submit(batch, objects) is None:
                for line in batch[:1]:
                    caller.submit([line], objects)


@attacker(
    "copies of a public draft, padded with junk signatures",
    "C1",
    by="stranger",
    emits=lambda: copies(ONE.inception, 3),
)
def padded_drafts(target: Target) -> None:
    for draft in target.known.drafts:
        hand_in(target, copies(draft, 80))


@attacker("copies of the members' public inceptions", "H1", by="stranger", emits=lambda: copies(ONE.inception, 3))
def padded_inceptions(target: Target) -> None:
    for _, inception in target.known.members:
        hand_in(target, copies(inception, 256), each=32)


@attacker("copies of a public request for compute", "H1", by="stranger")
def padded_requests(target: Target) -> None:
    for request in target.known.requests:
        hand_in(target, copies(request, 62), each=31)


def inception_with_objects(number: int, data: bytes, times: int) -> bytes:
    body = {"record": ONE.record, "number": number}
    return signed(statement("inception", ONE.by, (ONE.label, ONE.id), body, [named(data)] * times), ONE.keys)


OBJECT = bytes(1 << 20)


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


@attacker("a rival under an unbound name", "N1", by="identity", emits=lambda: [ONE.publish("acme/tiny@v9", RELEASE)])
def rival_name(target: Target) -> None:
    """Valid claims under the name that nobody bound: the version that is there, and a newer one."""
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
    """Do what a publisher does, at every victim: lines, objects, and the file."""
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
    """Sixty releases whose files never come."""
    for victim in target.victims:
        with calling(target, victim) as caller:
            for number in range(60):
                release = Release(b"file %d that never comes" % number)
                caller.submit([ONE.inception, ONE.publish(f"junk/pending-{number}@v1", release)], release.objects)


@attacker("uploads that are broken off, again and again", "M5", by="identity")
def abandoned_uploads(target: Target) -> None:
    release = Release(b"all but the end of this comes, and then once more\n" * 20_000)
    for victim in target.victims:
        with calling(target, victim) as caller:
            answered = caller.submit([ONE.inception, ONE.publish("junk/abandoned@v1", release)], release.objects)
            if not answered:
                continue
            for _ in range(10):
                caller.upload(bytes(answered[1][0]), release.data, [release.data[:600_000]])  # type: ignore[arg-type]


@attacker("calls whose bytes are no messages", "own", by="stranger", emits=lambda: JUNK)
def junk_calls(target: Target) -> None:
    for victim in target.victims:
        with calling(target, victim) as caller:
            for call, junk in itertools.product(("Submit", "Resolve", "GetClaims", "Ask", "Stat"), JUNK):
                try:
                    list(caller.start(call, junk, 5))
                except grpc.RpcError:
                    continue


JUNK = (
    b"\xff" * 100,
    b"\x0a\xff\xff\xff\xff\x0f",
    message((1, b"{" * 60_000)),
    message((1, b'{"payload":"' + b"A" * 60_000 + b'"}')),
    message(*((1, b"") for _ in range(5_000))),
    message((1, b"\x00" * (2 << 20))),
)
