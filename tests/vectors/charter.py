"""Vectors of charter changes: votes, invalid votes, certificates, equivocations. Three of four members are a quorum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from comity.trust.charter.votes import Intent, Ratify, RoundBody, Vote, void_reason
from comity.trust.statement import sign_payload, sign_statement
from support.assembly import CLASSICAL, Assembly, change, found, members, reseated
from support.rotations import of, seated
from support.world import Identity, seat

SEATS: Final = members(4)
GENESIS: Final = found(SEATS)
ONE: Final = change(GENESIS, 1)
OTHER: Final = change(GENESIS, 2)
FIRST: Final = SEATS[0]


def readings() -> dict[str, Any]:
    said: list[Vote] = [
        _intent(1),
        _intent(3, RoundBody(1, OTHER.digest), 2),
        Ratify(FIRST.id, GENESIS.digest, 1, 3, ONE.digest),
    ]
    right = said[0].statement()
    voids = [
        _intent(2, None, 1),
        _intent(3, RoundBody(1, OTHER.digest), 1),
        _intent(3, RoundBody(2, ONE.digest), 1),
        _intent(3, RoundBody(1, ONE.digest), 3),
        _intent(3, RoundBody(3, ONE.digest), 2),
    ]
    refused = {
        "white space after the statement": right.encode() + b" ",
        "round zero": replace(right, body={**right.body, "round": 0}).encode(),
        "an unknown member": replace(right, body={**right.body, "unless": "paid"}).encode(),
        "unlock left out": replace(right, body={k: v for k, v in right.body.items() if k != "unlock"}).encode(),
        "another name of the subject": right.encode().replace(b'"name":"charter"', b'"name":"body"'),
    }
    return {
        "about": "The two readings, as log lines, with Ed25519 signatures of one member of charter-certificate.json.",
        "member": FIRST.id,
        "accepted": [{"line": _line(reading), "says": _says(reading)} for reading in said],
        "void": [{"line": _line(reading), "says": _says(reading), "why": void_reason(reading)} for reading in voids],
        "refused": [
            {"why": why, "line": sign_payload(payload, FIRST.signer).encode().decode()}
            for why, payload in refused.items()
        ],
    }


def certificates() -> dict[str, Any]:
    return {
        "about": "Certificates: `lines` make `body` the successor of `genesis`, and no proper part of them does. "
        "`refused` are the codes for lines that make nothing.",
        "genesis": GENESIS.data.decode(),
        "accepted": [_plain(), _unlocked(), _joined(), _rotated()],
        "refused": _refused(),
        "lies": _lies(),
    }


def _plain() -> dict[str, Any]:
    assembly = Assembly(SEATS)
    _vote(assembly, *SEATS[:3])
    return _case("three of four, in one round", ONE.data, assembly)


def _unlocked() -> dict[str, Any]:
    assembly = Assembly(SEATS)
    for who in SEATS[1:]:
        assembly.intent(who, ONE, 2)
    for who in SEATS[:3]:
        assembly.intent(who, ONE, 3, last=(1, OTHER) if who is FIRST else None, unlock=2 if who is FIRST else None)
        assembly.ratify(who, ONE, 3)
    return _case("round 3, one INTENT of which names the intent-certificate of round 2", ONE.data, assembly)


def _joined() -> dict[str, Any]:
    newcomer = seat("ZZ", CLASSICAL)
    assembly, body = Assembly(SEATS), reseated(GENESIS, [*(who.member for who in SEATS), newcomer.member])
    for who in SEATS[:3]:
        assembly.intent(who, body)
        assembly.ratify(who, body)
    assembly.consent(newcomer, body)
    return _case("a fifth member, with its inception and its consent", body.data, assembly)


def _rotated() -> dict[str, Any]:
    second, rotation = seated(FIRST.member, of(FIRST)).to("second", recovery=1)
    moved = replace(FIRST.member, keys=second.state.keys, recovery=second.state.recovery)
    assembly, body = Assembly(SEATS), reseated(GENESIS, [moved, *(who.member for who in SEATS[1:])])
    assembly.lines.append(rotation)
    for who in (Identity(FIRST.inception, second.keys[0], FIRST.entry), *SEATS[1:3]):
        assembly.intent(who, body)
        assembly.ratify(who, body)
    return _case("a member that rotated, voting under its new key", body.data, assembly)


def _refused() -> list[dict[str, Any]]:
    two, bare, mixed = Assembly(SEATS), Assembly(SEATS), Assembly(SEATS)
    _vote(two, *SEATS[:2])
    for who in SEATS:
        bare.ratify(who, ONE)
        mixed.intent(who, ONE, 1)
        mixed.intent(who, ONE, 2)
    for who, at in zip(SEATS, (1, 1, 2, 2), strict=True):
        mixed.ratify(who, ONE, at)
    stolen = reseated(GENESIS, [replace(SEATS[0].member, keys=seat("ZZ", CLASSICAL).member.keys), *_others()])
    relabelled = reseated(GENESIS, [replace(SEATS[0].member, jurisdiction="ZZ"), *_others()])
    cases = [
        _case("two of four", ONE.data, two, "CHARTER-QUORUM"),
        _case("RATIFYs of two rounds", ONE.data, mixed, "CHARTER-QUORUM"),
        _case("no intent-certificate", ONE.data, bare, "CHARTER-INTENT"),
    ]
    for why, body, code in (
        ("a seat under a stranger's key", stolen, "CHARTER-REKEYED"),
        ("a seat in another jurisdiction", relabelled, "CHARTER-JURISDICTION"),
    ):
        assembly = Assembly(SEATS)
        for who in SEATS:
            assembly.intent(who, body)
            assembly.ratify(who, body)
        cases.append(_case(why, body.data, assembly, code))
    return cases


def _lies() -> list[dict[str, str]]:
    def pair(kind: str, first: Vote, second: Vote) -> dict[str, str]:
        return {"kind": kind, "member": FIRST.id, "first": _line(first), "second": _line(second)}

    other = replace(_intent(1), body=OTHER.digest)
    ratify = Ratify(FIRST.id, GENESIS.digest, 1, 2, ONE.digest)
    return [
        pair("intents", _intent(1), other),
        pair("ratified", ratify, replace(ratify, body=OTHER.digest)),
        pair("lock", _intent(3), ratify),
        pair("lock", _intent(3, RoundBody(2, OTHER.digest), 2), ratify),
    ]


def _case(what: str, body: bytes, assembly: Assembly, code: str | None = None) -> dict[str, Any]:
    lines = [entry.line.decode() for entry in assembly.lines]
    return {"what": what, "body": body.decode(), "lines": lines, **({"code": code} if code else {})}


def _vote(assembly: Assembly, *who: Identity) -> None:
    for member in who:
        assembly.intent(member, ONE)
        assembly.ratify(member, ONE)


def _others() -> list[Any]:
    return [who.member for who in SEATS[1:]]


def _intent(at: int, last: RoundBody | None = None, unlock: int | None = None) -> Intent:
    return Intent(FIRST.id, GENESIS.digest, 1, at, ONE.digest, last, unlock)


def _line(reading: Vote) -> str:
    return sign_statement(reading.statement(), FIRST.signer).line.decode()


def _says(reading: Vote) -> dict[str, Any]:
    statement = reading.statement()
    return {"predicate": statement.predicate, **statement.body}
