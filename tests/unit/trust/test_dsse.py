"""Envelopes (DSSE): one spelling, hybrid signatures, and the bounds of each field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.encoding import b64encode, canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.keys import SIGNATURE_SIZES, HybridSigner
from comity.trust.statement import (
    MAX_LINE,
    MAX_SIGNATURES,
    Envelope,
    EnvelopeSignature,
    assemble_envelope,
    pae,
    sign_payload,
)
from support.world import private_key, signer

ALICE, BOB = signer("alice"), signer("bob")
PAYLOAD = b'{"said":"this"}'
SEALED = sign_payload(PAYLOAD, ALICE)


def document(**change: Any) -> bytes:
    return canonical({**json.loads(SEALED.encode()), **change})


def signature(at: int = 0, **change: Any) -> bytes:
    signatures = json.loads(SEALED.encode())["signatures"]
    signatures[at] = {**signatures[at], **change}
    return document(signatures=signatures)


def forged(at: int, sig: bytes) -> Envelope:
    signatures = list(SEALED.signatures)
    signatures[at] = EnvelopeSignature(signatures[at].keyid, sig)
    return replace(SEALED, signatures=tuple(signatures))


def test_the_signed_bytes_are_the_examples_of_the_dsse_specification() -> None:
    assert (
        pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_a_statement_is_its_payload_and_type_with_any_signer() -> None:
    said = sha256(pae(SEALED.payload_type, PAYLOAD))
    assert {SEALED.statement_digest, sign_payload(PAYLOAD, BOB).statement_digest} == {said}
    assert replace(SEALED, payload=PAYLOAD + b" ").statement_digest != said
    assert replace(SEALED, payload_type="text/plain").statement_digest != said


def test_an_envelope_reads_back_as_one_line() -> None:
    assert b"\n" not in SEALED.encode()
    assert Envelope.parse(SEALED.encode()) == SEALED


def test_a_hybrid_key_verifies_by_both_halves_together() -> None:
    assert SEALED.verified_by(ALICE.public)
    assert not SEALED.verified_by(BOB.public)
    for half in (0, 1):
        assert not replace(SEALED, signatures=SEALED.signatures[half : half + 1]).verified_by(ALICE.public)


@pytest.mark.parametrize("half", [0, 1])
def test_one_damaged_half_is_enough_to_refuse(half: int) -> None:
    good = SEALED.signatures[half].sig
    assert not forged(half, bytes([good[0] ^ 1]) + good[1:]).verified_by(ALICE.public)
    assert not forged(half, SEALED.signatures[1 - half].sig).verified_by(ALICE.public)
    assert not forged(half, BOB.sign(pae(SEALED.payload_type, PAYLOAD))[half][1]).verified_by(ALICE.public)


def test_a_signature_covers_the_payload_and_its_type() -> None:
    assert not replace(SEALED, payload=PAYLOAD + b" ").verified_by(ALICE.public)
    assert not replace(SEALED, payload_type="text/plain").verified_by(ALICE.public)


def test_a_line_with_anothers_signature_too_is_not_verified() -> None:
    """Otherwise a stranger could make any number of lines of one statement."""
    both = sign_payload(PAYLOAD, BOB, ALICE)
    assert not both.verified_by(ALICE.public)
    assert not both.verified_by(BOB.public)
    assert both.signed_by((ALICE.public, BOB.public), 2)


@pytest.mark.parametrize("half", [0, 1])
def test_a_line_padded_with_junk_signatures_is_not_verified(half: int) -> None:
    junk = EnvelopeSignature(BOB.public.halves[half].id, bytes(SIGNATURE_SIZES[BOB.public.halves[half].alg]))
    padded = assemble_envelope(PAYLOAD, (*SEALED.signatures, junk))
    assert Envelope.parse(padded.encode()) == padded
    assert not padded.verified_by(ALICE.public)
    assert not padded.signed_by((ALICE.public, BOB.public), 1)
    assert padded.has_valid_signature(ALICE.public)
    assert not padded.has_valid_signature(BOB.public)


@pytest.mark.parametrize("half", [0, 1])
def test_a_key_has_a_valid_signature_only_with_both_halves(half: int) -> None:
    good = SEALED.signatures[half].sig
    assert SEALED.has_valid_signature(ALICE.public)
    assert not forged(half, bytes([good[0] ^ 1]) + good[1:]).has_valid_signature(ALICE.public)
    assert not replace(SEALED, signatures=SEALED.signatures[half : half + 1]).has_valid_signature(ALICE.public)


def test_an_envelope_without_signatures_is_verified_by_no_key() -> None:
    bare = replace(SEALED, signatures=())
    assert not bare.verified_by(ALICE.public)
    assert not bare.has_valid_signature(ALICE.public)


def test_a_threshold_counts_the_keys_that_signed_with_every_half() -> None:
    keys = (ALICE.public, BOB.public, signer("carol").public)
    both = sign_payload(PAYLOAD, ALICE, BOB)
    assert both.signed_by(keys, 2)
    assert not both.signed_by(keys, 3)
    for left_out in range(4):
        signatures = both.signatures[:left_out] + both.signatures[left_out + 1 :]
        assert not replace(both, signatures=signatures).signed_by(keys, 1)


def test_a_key_signs_once() -> None:
    with pytest.raises(Malformed):
        sign_payload(PAYLOAD, ALICE, ALICE)
    with pytest.raises(Malformed):
        sign_payload(PAYLOAD, ALICE, HybridSigner((private_key("alice", "ed25519"),)))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(SEALED.encode() + b"\n", id="a line feed at the end"),
        pytest.param(SEALED.encode().replace(b",", b",\n", 1), id="two lines"),
        pytest.param(SEALED.encode().replace(b",", b", ", 1), id="white space"),
        pytest.param(SEALED.encode().replace(b'"sig"', b'"s\\u0069g"', 1), id="an escape"),
        pytest.param(
            json.dumps(dict(reversed(json.loads(SEALED.encode()).items())), separators=(",", ":")).encode(),
            id="members in another order",
        ),
        pytest.param(
            document(signatures=json.loads(SEALED.encode())["signatures"][::-1]), id="signatures in another order"
        ),
        pytest.param(signature(sig=b64encode(bytes(63))), id="a signature of a length that no algorithm has"),
        pytest.param(signature(sig=b64encode(bytes(64)).rstrip("=")), id="base64 without its padding"),
        pytest.param(SEALED.encode() + b"\0", id="an additional byte"),
        pytest.param(document(extra=1), id="an unknown member"),
        pytest.param(document(payload="QR=="), id="a second spelling of the payload"),
        pytest.param(document(payload=None), id="no payload"),
        pytest.param(document(payloadType=""), id="no payload type"),
        pytest.param(document(signatures=[]), id="no signature"),
        pytest.param(signature(keyid="sha256:" + SEALED.signatures[0].keyid), id="a second spelling of the key id"),
        pytest.param(signature(keyid=None), id="no key id"),
        pytest.param(signature(cert="x"), id="an unknown member of a signature"),
        pytest.param(signature(1, keyid=SEALED.signatures[0].keyid), id="two signatures by one key"),
        pytest.param(SEALED.encode() + b" " * MAX_LINE, id="too large"),
    ],
)
def test_a_malformed_envelope_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        Envelope.parse(line)


def test_signatures_are_counted_before_they_are_read() -> None:
    signatures = [{"keyid": f"{number:064x}", "sig": b64encode(bytes(64))} for number in range(MAX_SIGNATURES + 1)]
    assert len(Envelope.parse(document(signatures=signatures[:-1])).signatures) == MAX_SIGNATURES
    with pytest.raises(Malformed):
        Envelope.parse(document(signatures=signatures))


def test_no_more_signatures_are_made_than_are_read() -> None:
    made = [EnvelopeSignature(sha256(b"%d" % number), bytes(64)) for number in range(MAX_SIGNATURES + 1)]
    assert len(Envelope.parse(assemble_envelope(PAYLOAD, made[1:]).encode()).signatures) == MAX_SIGNATURES
    with pytest.raises(Malformed, match="25 signatures"):
        assemble_envelope(PAYLOAD, made)


def test_an_envelope_beyond_a_log_entry_is_not_written() -> None:
    largest = replace(SEALED, payload=b"x" * 44_000)
    rest = MAX_LINE - len(largest.encode())
    largest = replace(largest, payload=largest.payload + b"x" * (rest // 4 * 3), payload_type="x" * 28)
    largest = replace(largest, payload_type="x" * (28 + MAX_LINE - len(largest.encode())))
    assert len(largest.encode()) == MAX_LINE
    assert Envelope.parse(largest.encode()) == largest
    with pytest.raises(Malformed, match="too large"):
        replace(largest, payload_type=largest.payload_type + "x").encode()


def test_the_type_of_a_payload_is_bounded() -> None:
    assert Envelope.parse(document(payloadType="x" * 100)).payload_type == "x" * 100
    with pytest.raises(Malformed, match="1 to 100 characters"):
        Envelope.parse(document(payloadType="x" * 101))
