"""One signed statement is one line: for each payload and set of signatures exactly one spelling is accepted (5a)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from comity.trust.encoding import canonical
from comity.trust.errors import Malformed
from comity.trust.identity import KeySet
from comity.trust.keys import SIGNATURE_SIZES, HybridSigner
from comity.trust.statement import Envelope, EnvelopeSignature, assemble_envelope, pae, sign_payload
from hypothesis import assume, given
from hypothesis import strategies as st
from support.world import signer

GOVERNANCE = tuple(signer(f"governance {at}", ("ed25519",)) for at in range(3))
STRANGER = signer("stranger", ("ed25519",))
TWO_OF_THREE = KeySet(tuple(each.public for each in GOVERNANCE), 2)

payloads = st.binary(max_size=200)
sizes = st.sampled_from(sorted(set(SIGNATURE_SIZES.values())))
made_signatures = st.builds(
    EnvelopeSignature,
    st.binary(min_size=32, max_size=32).map(lambda raw: raw.hex()),
    sizes.flatmap(lambda size: st.binary(min_size=4, max_size=4).map(lambda seed: (seed * size)[:size])),
)
envelopes = st.builds(
    lambda payload, made, kind: assemble_envelope(payload, made, payload_type=kind),
    payloads,
    st.lists(made_signatures, min_size=1, max_size=4, unique_by=lambda each: each.keyid),
    st.sampled_from(["application/vnd.in-toto+json", "text/plain", "é"]),
)
orders = st.randoms(use_true_random=False)


@given(envelopes)
def test_an_envelope_reads_back_from_the_line_that_it_is(envelope: Envelope) -> None:
    assert Envelope.parse(envelope.encode()) == envelope
    assert Envelope.parse(envelope.encode()).encode() == envelope.encode()


@given(envelopes, orders)
def test_one_line_is_read_of_one_payload_and_one_set_of_signatures(envelope: Envelope, order: Any) -> None:
    made = list(envelope.signatures)
    order.shuffle(made)
    again = assemble_envelope(envelope.payload, made, payload_type=envelope.payload_type)
    assert again.encode() == envelope.encode()
    shuffled = Envelope(envelope.payload_type, envelope.payload, tuple(made)).encode()
    if shuffled != envelope.encode():
        with pytest.raises(Malformed):
            Envelope.parse(shuffled)


def _spaced(line: bytes, document: Any, at: int) -> bytes:
    places = [place for place, byte in enumerate(line) if byte in b",:{}[]"]
    place = places[at % len(places)]
    return line[:place] + b" " + line[place:]


def _shuffled(line: bytes, document: Any, at: int) -> bytes:
    return json.dumps(dict(reversed(document.items())), separators=(",", ":"), ensure_ascii=False).encode()


def _escaped(line: bytes, document: Any, at: int) -> bytes:
    return line.replace(b"payloadType", b"payload\\u0054ype")


def _with_member(line: bytes, document: Any, at: int) -> bytes:
    return canonical({**document, "padding": at})


def _with_member_inside(line: bytes, document: Any, at: int) -> bytes:
    first, *rest = document["signatures"]
    return canonical({**document, "signatures": [{**first, "cert": str(at)}, *rest]})


def _twice(line: bytes, document: Any, at: int) -> bytes:
    return canonical({**document, "signatures": [document["signatures"][0], *document["signatures"]]})


def _with_line_feed(line: bytes, document: Any, at: int) -> bytes:
    return line + b"\n"


def _longer(line: bytes, document: Any, at: int) -> bytes:
    first, *rest = document["signatures"]
    longer = base64.b64encode(base64.b64decode(first["sig"]) + b"\0").decode()
    return canonical({**document, "signatures": [{**first, "sig": longer}, *rest]})


def _upper(line: bytes, document: Any, at: int) -> bytes:
    first, *rest = document["signatures"]
    return canonical({**document, "signatures": [{**first, "keyid": first["keyid"].upper()}, *rest]})


MUTATIONS: tuple[Callable[[bytes, Any, int], bytes], ...] = (
    _spaced,
    _shuffled,
    _escaped,
    _with_member,
    _with_member_inside,
    _twice,
    _with_line_feed,
    _longer,
    _upper,
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__.strip("_"))
@given(envelopes, st.integers(0, 1000))
def test_no_other_spelling_of_a_line_is_read(
    mutation: Callable[[bytes, Any, int], bytes], envelope: Envelope, at: int
) -> None:
    line = envelope.encode()
    other = mutation(line, json.loads(line), at)
    assume(other != line)
    with pytest.raises(Malformed):
        Envelope.parse(other)


@given(payloads.filter(lambda payload: len(payload) % 3 != 0), st.integers(1, 15))
def test_base64_with_bits_to_spare_is_not_read(payload: bytes, spare: int) -> None:
    line = sign_payload(payload, STRANGER).encode()
    document = json.loads(line)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = document["payload"].rstrip("=")
    padding = len(document["payload"]) - len(text)
    last = digits[digits.index(text[-1]) | (spare & (15 if padding == 2 else 3))]
    other = text[:-1] + last + "=" * padding
    assume(other != document["payload"])
    with pytest.raises(Malformed):
        Envelope.parse(canonical({**document, "payload": other}))


@given(envelopes, envelopes)
def test_the_statement_digest_does_not_depend_on_the_signatures(envelope: Envelope, other: Envelope) -> None:
    again = assemble_envelope(envelope.payload, other.signatures, payload_type=envelope.payload_type)
    assert again.statement_digest == envelope.statement_digest
    alike = (other.payload, other.payload_type) == (envelope.payload, envelope.payload_type)
    assert (other.statement_digest == envelope.statement_digest) == alike


@given(payloads, st.sets(st.integers(0, 2)), st.lists(made_signatures, max_size=3, unique_by=lambda each: each.keyid))
def test_junk_beside_true_signatures_is_refused_and_enough_of_them_alone_are_not(
    payload: bytes, who: set[int], junk: list[EnvelopeSignature]
) -> None:
    message = pae("application/vnd.in-toto+json", payload)
    made = [EnvelopeSignature(keyid, sig) for at in who for keyid, sig in GOVERNANCE[at].sign(message)]
    envelope = assemble_envelope(payload, [*made, *junk])
    assert TWO_OF_THREE.signed(envelope) == (len(who) >= 2 and not junk)


@given(payloads, st.integers(0, 2), st.binary(min_size=64, max_size=64))
def test_a_signature_that_does_not_hold_is_refused_beside_enough_that_do(payload: bytes, bad: int, sig: bytes) -> None:
    envelope = sign_payload(payload, *GOVERNANCE)
    keyid = GOVERNANCE[bad].public.halves[0].id
    forged = [EnvelopeSignature(each.keyid, sig) if each.keyid == keyid else each for each in envelope.signatures]
    assert TWO_OF_THREE.signed(envelope)
    assert not TWO_OF_THREE.signed(assemble_envelope(payload, forged))


@given(payloads)
def test_one_half_of_a_hybrid_key_beside_enough_others_is_refused(payload: bytes) -> None:
    hybrid = signer("hybrid")
    keys = KeySet((*TWO_OF_THREE.keys, hybrid.public), 3)
    assert keys.signed(sign_payload(payload, *GOVERNANCE))
    assert keys.signed(sign_payload(payload, *GOVERNANCE, hybrid))
    for half in hybrid.keys:
        assert not keys.signed(sign_payload(payload, *GOVERNANCE, HybridSigner((half,))))
