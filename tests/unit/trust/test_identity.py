"""Identities: inceptions, key sets, and the id that follows from the inception."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import MAX_KEYS, Inception, InceptionStatement, KeySet, check_inception, check_jurisdiction
from comity.trust.keys import HybridSigner
from comity.trust.statement import Statement, Subject, parse_entry, sign_statement
from support.world import identity, signer

A, B, C, D = (signer(name) for name in ("a", "b", "c", "d"))
TWO_OF_THREE = KeySet((A.public, B.public, C.public), 2)
RECORD = Inception("publisher", TWO_OF_THREE, (D.public.id,), "node.example/log", "CH", "Swiss AI")


def record(**change: Any) -> dict[str, Any]:
    return {**RECORD.to_json(), **change}


def statement(**change: Any) -> Statement:
    return replace(sign_content(InceptionStatement(RECORD), A, B, C).statement, **change)


def test_the_id_is_the_hash_of_the_canonical_record() -> None:
    assert RECORD.id == sha256(canonical(RECORD.to_json()))


def test_an_inception_reads_back_and_proves_itself() -> None:
    entry = parse_entry(sign_content(InceptionStatement(RECORD), A, B, C).line)
    assert check_inception(entry) == RECORD
    assert entry.statement.by == RECORD.author


def test_an_identity_without_label_or_jurisdiction_proves_itself_too() -> None:
    bare = Inception("publisher", KeySet((A.public,), 1), ())
    assert check_inception(parse_entry(sign_content(InceptionStatement(bare), A).line)) == bare
    assert bare.display == bare.id[:12]


def test_every_first_key_signs_the_inception() -> None:
    for signers in ((A, B), (A, B, D), (D,)):
        with pytest.raises(Untrusted) as refusal:
            check_inception(sign_content(InceptionStatement(RECORD), *signers))
        assert refusal.value.code == "INCEPTION"


def test_an_inception_is_about_the_record_in_it() -> None:
    other = replace(RECORD, label="Someone else")
    for change in ({"subjects": (Subject("", other.id),)}, {"by": other.author}, {"body": {"record": other.to_json()}}):
        with pytest.raises(Untrusted):
            check_inception(sign_statement(statement(**change), A, B, C))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "vouched"}, id="another predicate"),
        pytest.param({"body": {"record": RECORD.to_json(), "more": 1}}, id="an additional member"),
        pytest.param({"body": {}}, id="no record"),
        pytest.param({"subjects": (Subject("", RECORD.id), Subject("", A.public.id))}, id="two subjects"),
    ],
)
def test_a_statement_that_is_no_inception_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        check_inception(sign_statement(statement(**change), A, B, C))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(record(schema="comity/inception/v2"), id="another schema"),
        pytest.param(record(kind="king"), id="an unknown kind"),
        pytest.param(record(threshold=1), id="a threshold that is not more than half"),
        pytest.param(record(threshold=4), id="a threshold beyond the keys"),
        pytest.param(record(threshold=True), id="a threshold that is no number"),
        pytest.param(record(keys=[]), id="no keys"),
        pytest.param(record(keys=[A.public.to_json()] * 2, threshold=2), id="a key twice"),
        pytest.param(record(keys=[{"rsa": "AAAA"}], threshold=1), id="an unknown algorithm"),
        pytest.param(record(recovery=[D.public.id] * 2), id="a recovery digest twice"),
        pytest.param(record(recovery=["sha256:" + D.public.id]), id="a second spelling of a digest"),
        pytest.param(record(recovery=[sha256(b"%d" % at) for at in range(8)]), id="too many recovery digests"),
        pytest.param(record(jurisdiction="Switzerland"), id="a jurisdiction that is no code"),
        pytest.param(record(label="two\nlines"), id="a label of two lines"),
        pytest.param(record(label="a\u2028b"), id="a label with a line separator"),
        pytest.param(record(label="\x9b31m"), id="a label with a terminal escape"),
        pytest.param(record(label="x" * 201), id="a long label"),
        pytest.param(record(note=""), id="an unknown member"),
        pytest.param([], id="no object"),
    ],
)
def test_a_malformed_record_is_refused(value: Any) -> None:
    with pytest.raises(Malformed):
        Inception.from_json(value)


@pytest.mark.parametrize(
    "change", [{"kind": "king"}, {"recovery": tuple(sha256(b"%d" % at) for at in range(MAX_KEYS + 1))}]
)
def test_a_record_that_nobody_could_read_back_cannot_be_built(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        replace(RECORD, **change)


@pytest.mark.parametrize(("member", "most"), [("home", 255), ("jurisdiction", 31), ("label", 200)])
def test_the_texts_of_a_record_are_bounded(member: str, most: int) -> None:
    assert Inception.from_json(record(**{member: "x" * most})).to_json()[member] == "x" * most
    with pytest.raises(Malformed):
        Inception.from_json(record(**{member: "x" * (most + 1)}))


def test_a_key_set_is_post_quantum_if_every_key_is() -> None:
    classical = signer("classical", ("ed25519",)).public
    assert KeySet((A.public, B.public), 2).post_quantum
    assert not KeySet((A.public, classical), 2).post_quantum
    assert not KeySet((classical,), 1).post_quantum


def test_two_spellings_of_a_record_are_one_identity() -> None:
    shuffled = {name: RECORD.to_json()[name] for name in sorted(RECORD.to_json(), reverse=True)}
    assert Inception.from_json(shuffled).id == RECORD.id


def test_a_key_set_counts_distinct_keys_that_signed_in_full() -> None:
    said = statement()
    assert TWO_OF_THREE.signed(sign_statement(said, A, B).envelope)
    assert TWO_OF_THREE.signed(sign_statement(said, C, A, B).envelope)
    assert not TWO_OF_THREE.signed(sign_statement(said, A).envelope)
    assert not TWO_OF_THREE.signed(sign_statement(said, A, D).envelope)
    envelope = sign_statement(said, A, B).envelope
    for at in range(4):
        left = envelope.signatures[:at] + envelope.signatures[at + 1 :]
        assert not TWO_OF_THREE.signed(replace(envelope, signatures=left))


def test_a_key_set_refuses_an_envelope_with_another_signature() -> None:
    said = statement()
    assert not TWO_OF_THREE.signed(sign_statement(said, A, B, D).envelope)
    assert not TWO_OF_THREE.signed(sign_statement(said, A, B, HybridSigner(C.keys[:1])).envelope)
    assert not TWO_OF_THREE.signed(sign_statement(said, A, B, HybridSigner(D.keys[:1])).envelope)


def test_additional_keys_sign_all_together_and_no_others() -> None:
    said, beside = statement(), D.public.halves
    assert TWO_OF_THREE.signed(sign_statement(said, A, B, D).envelope, beside)
    assert not TWO_OF_THREE.signed(sign_statement(said, A, B).envelope, beside)
    assert not TWO_OF_THREE.signed(sign_statement(said, A, B, HybridSigner(D.keys[:1])).envelope, beside)
    assert not TWO_OF_THREE.signed(sign_statement(said, A, D).envelope, beside)
    assert TWO_OF_THREE.signed(sign_statement(said, A, B).envelope, A.public.halves)


def test_a_key_set_is_bounded_and_has_a_majority() -> None:
    keys = tuple(signer(f"key {at}", ("ed25519",)).public for at in range(MAX_KEYS + 1))
    assert KeySet(keys[:7], 4).threshold == 4
    for some, threshold in ((keys, 5), (keys[:4], 2), (keys[:1], 0), ((), 1), (keys[:2], 1)):
        with pytest.raises(Malformed):
            KeySet(some, threshold)


def test_one_half_shared_by_two_keys_is_one_key_twice() -> None:
    classical = signer("a", ("ed25519",)).public
    with pytest.raises(Malformed):
        KeySet((A.public, classical), 2)


@pytest.mark.parametrize("code", ["CH", "XK", "european-union", "eur"])
def test_a_jurisdiction_is_a_code_or_a_name_that_the_charter_defines(code: str) -> None:
    assert check_jurisdiction(code) == code


@pytest.mark.parametrize("code", ["", "C", "ch", "x" * 32, "CHE", "C1", "CH\n", "-eu", "Éu"])
def test_other_jurisdictions_are_refused(code: str) -> None:
    with pytest.raises(Malformed):
        check_jurisdiction(code)


def test_the_label_is_only_a_claim() -> None:
    impostor = identity("Swiss AI", "CH", algs=("ed25519",))
    assert impostor.inception.display == RECORD.display
    assert impostor.id != RECORD.id


def test_the_largest_identity_fits_a_log_line() -> None:
    signers = [signer(f"founder {at}") for at in range(MAX_KEYS)]
    recovery = tuple(sha256(b"%d" % at) for at in range(MAX_KEYS))
    largest = Inception(
        "member", KeySet(tuple(s.public for s in signers), MAX_KEYS), recovery, "x" * 255, "CH", "y" * 200
    )
    assert check_inception(parse_entry(sign_content(InceptionStatement(largest), *signers).line)) == largest
