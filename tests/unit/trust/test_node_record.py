"""Node records: what they bind, and who must sign them."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import Json, b64encode, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.identity import MAX_KEYS, KeySet
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.node_records import (
    MAX_CERTIFICATE,
    MAX_OPERATORS,
    Addresses,
    NodeRecord,
    certificate_key,
    check_node_record,
    signed_by_node,
)
from comity.trust.statement import Statement, Subject, parse_entry, sign_statement
from comity.trust.tlog.note import ED25519, VerifierKey
from comity.wire.tls import make_certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.case import nodes
from support.world import NOW, private_key, signer

NODE, OTHER = nodes(2)
RECORD, KEYS = NODE.record, NODE.seat.inception.keys
OPERATOR = private_key("an operator", "ecdsa-p256")
WITH_OPERATOR = replace(RECORD, operators=(make_certificate(OPERATOR),))
BOUND = [HybridSigner((key,)) for key in (NODE.log, *NODE.cosigner.keys, *NODE.online.keys, NODE.tls, OPERATOR)]


def said(**change: Any) -> Statement:
    return replace(NODE.entry.statement, body={**NODE.entry.statement.body, **change})


def certificate(key: Any, not_before: int = 0, padding: x509.UnrecognizedExtension | None = None) -> bytes:
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    if padding is not None:
        builder = builder.add_extension(padding, critical=False)
    start = datetime.datetime.fromtimestamp(NOW + not_before, datetime.UTC)
    made = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(1)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_a_node_record_reads_back() -> None:
    assert NodeRecord.parse(parse_entry(NODE.entry.line).statement) == RECORD
    assert check_node_record(parse_entry(NODE.entry.line), KEYS) == RECORD


def test_a_record_counts_by_its_signatures_in_any_order() -> None:
    entry = sign_content(WITH_OPERATOR, NODE.seat.signer, *BOUND[::-1])
    assert check_node_record(parse_entry(entry.line), KEYS) == WITH_OPERATOR


def test_a_record_binds_these_keys() -> None:
    assert [key.alg for key in WITH_OPERATOR.bound_keys] == [
        "ed25519",
        "ed25519",
        "ml-dsa-44",
        "ed25519",
        "ml-dsa-65",
        "ecdsa-p256",
        "ecdsa-p256",
    ]
    assert RECORD.origin == "node-ch.example/log"
    assert RECORD.node.id == NODE.online.public.id


@pytest.mark.parametrize(
    "missing", range(len(BOUND)), ids=[f"{key.alg}-{at}" for at, key in enumerate(WITH_OPERATOR.bound_keys)]
)
def test_every_bound_key_countersigns(missing: int) -> None:
    entry = sign_content(WITH_OPERATOR, NODE.seat.signer, *BOUND[:missing] + BOUND[missing + 1 :])
    with pytest.raises(Untrusted, match="did not countersign") as refusal:
        check_node_record(entry, KEYS)
    assert refusal.value.code == "NODE-RECORD"
    assert WITH_OPERATOR.bound_keys[missing].id[:16] in refusal.value.why


@pytest.mark.parametrize("half", [0, 1])
def test_the_member_signs_with_both_halves_of_its_key(half: int) -> None:
    for governance in ([], [signer("a stranger")], [OTHER.seat.signer], [HybridSigner((NODE.seat.signer.keys[half],))]):
        with pytest.raises(Untrusted, match="governance") as refusal:
            check_node_record(sign_content(RECORD, *governance, *BOUND), KEYS)
        assert refusal.value.code == "NODE-RECORD"


def test_no_member_binds_a_key_that_it_does_not_hold() -> None:
    stolen = replace(RECORD, log=OTHER.record.log)
    with pytest.raises(Untrusted):
        check_node_record(sign_content(stolen, NODE.seat.signer, *BOUND), KEYS)


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(replace(said(), predicate="vouched"), id="another predicate"),
        pytest.param(replace(said(), by=RECORD.node), id="by a node"),
        pytest.param(replace(said(), subjects=(Subject("", sha256(b"other/log")),)), id="about another origin"),
        pytest.param(replace(said(), subjects=NODE.entry.statement.subjects * 2), id="two subjects"),
        pytest.param(said(extra=1), id="an unknown member"),
        pytest.param(said(name="a\nb"), id="a name of two lines"),
        pytest.param(said(log=str(RECORD.cosigners[0])), id="a log key of a cosigner's type"),
        pytest.param(said(log="node-ch.example/log"), id="a log without its key"),
        pytest.param(said(cosigners=[]), id="no cosigner"),
        pytest.param(said(cosigners=[5]), id="a cosigner that is no text"),
        pytest.param(said(cosigners=[str(RECORD.log)]), id="a cosigner of the log's type"),
        pytest.param(said(cosigners=[str(RECORD.cosigners[0])] * 2), id="a cosigner twice"),
        pytest.param(
            said(cosigners=[str(RECORD.cosigners[0]), str(OTHER.record.cosigners[1])]), id="two cosigner names"
        ),
        pytest.param(said(online={"ed448": "AAAA"}), id="an unknown algorithm"),
        pytest.param(said(online={"ed25519": b64encode(RECORD.log.public)}), id="one key in two roles"),
        pytest.param(said(tls=""), id="no certificate"),
        pytest.param(said(tls=b64encode(RECORD.tls + b"\0")), id="a certificate and more"),
        pytest.param(said(tls=b64encode(bytes(MAX_CERTIFICATE + 1))), id="a certificate that is too large"),
        pytest.param(said(operators=[b64encode(RECORD.tls)]), id="the node's own certificate as operator"),
        pytest.param(said(operators=[b64encode(make_certificate(OPERATOR))] * 5), id="too many operators"),
    ],
)
def test_a_malformed_record_is_refused(statement: Statement) -> None:
    with pytest.raises(Malformed):
        NodeRecord.parse(sign_statement(statement, NODE.seat.signer).statement)


ED, DSA = RECORD.cosigners


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"log": VerifierKey("node/log", ED.type, RECORD.log.public)}, "the log key must be of type 0x01"),
        ({"cosigners": ()}, "expected one or two cosigner keys"),
        ({"cosigners": (ED, DSA, ED)}, "expected one or two cosigner keys"),
        ({"cosigners": (ED, VerifierKey(ED.name, ED25519, ED.public))}, "expected one or two cosigner keys"),
        ({"cosigners": (VerifierKey(ED.name, ED25519, ED.public),)}, "expected one or two cosigner keys"),
        ({"cosigners": (ED, replace(DSA, name="another"))}, "one name and different types"),
        ({"cosigners": (ED, replace(ED, public=OTHER.record.cosigners[0].public))}, "one name and different types"),
        ({"operators": (RECORD.tls,)}, "one key has two roles"),
    ],
)
def test_an_invalid_record_cannot_be_made(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Malformed) as refused:
        replace(RECORD, **change)
    assert why in refused.value.why


def test_a_record_may_have_one_cosigner_key_and_a_name_of_a_hundred_characters() -> None:
    for cosigner in (ED, DSA):
        record = replace(RECORD, cosigners=(cosigner,), name="n" * 100)
        assert NodeRecord.parse(sign_content(record, NODE.seat.signer, *BOUND).statement) == record
    with pytest.raises(Malformed):
        NodeRecord.parse(sign_statement(said(name="n" * 101), NODE.seat.signer).statement)


def test_a_record_without_an_author_is_refused() -> None:
    with pytest.raises(Malformed, match="not a node-record statement of an identity"):
        NodeRecord.parse(replace(NODE.entry, statement=replace(said(), by=None)).statement)


def test_a_certificate_is_read_up_to_its_bound() -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    def of_size(wanted: int) -> bytes:
        """A signature has one of three lengths."""
        for _, size in itertools.product(range(50), range(wanted - 280, wanted - 240)):
            padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.1"), bytes(size))
            if len(der := certificate(key, padding=padding)) == wanted:
                return der
        raise AssertionError("no signature has this length")

    largest, larger = of_size(MAX_CERTIFICATE), of_size(MAX_CERTIFICATE + 1)
    record = replace(RECORD, tls=largest)
    tls = HybridSigner((PrivateKey("ecdsa-p256", key),))
    assert NodeRecord.parse(sign_content(record, NODE.seat.signer, *BOUND[:-2], tls).statement) == record
    with pytest.raises(Malformed, match=f"at most {MAX_CERTIFICATE} bytes"):
        NodeRecord.parse(sign_statement(said(tls=b64encode(larger)), NODE.seat.signer).statement)


def test_a_statement_of_a_node_names_it_and_has_its_signature() -> None:
    entry = sign_content(Addresses.of(RECORD, [], []), NODE.online)
    assert signed_by_node(entry, RECORD)
    as_other = sign_statement(replace(entry.statement, by=OTHER.record.node), NODE.online)
    assert not signed_by_node(as_other, RECORD) and not signed_by_node(as_other, OTHER.record)
    assert entry.statement.author("addresses") == RECORD.node
    for change in ({"by": None}, {"by": NODE.seat.inception.author}, {"predicate": "hold"}):
        with pytest.raises(Malformed):
            replace(entry.statement, **change).author("addresses")


def test_addresses_are_hosts_and_ports_at_their_bounds() -> None:
    good = ["a:1", "a:65535", "h" * 298 + ":1", "[::1]:7443"]
    assert Addresses.parse(sign_content(Addresses.of(RECORD, good, good[:1]), NODE.online).statement).mutual == tuple(
        good
    )
    for bad in (":1", "a:", "a:0", "a:65536", "h" * 299 + ":1", "a b:1", "a:01", "a", "", "a\n:1"):
        with pytest.raises(Malformed):
            sign_content(Addresses.of(RECORD, [bad], []), NODE.online)
    statement = sign_content(Addresses.of(RECORD, good, []), NODE.online).statement
    bodies: tuple[dict[str, Json], ...] = (
        {"mutual": [["a", ":", "1"]], "open": []},
        {"mutual": [], "open": [], "more": 1},
        {"mutual": []},
    )
    for body in bodies:
        with pytest.raises(Malformed):
            Addresses.parse(replace(statement, body=body))


def test_a_log_key_is_of_the_notes_own_type() -> None:
    key = VerifierKey("node/log", ED25519, RECORD.log.public)
    assert replace(RECORD, log=key).origin == "node/log"


def test_a_certificate_is_its_p256_key_and_its_times_do_not_matter() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert certificate_key(certificate(key, -(10**9))) == certificate_key(certificate(key, 10**8))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: b"", id="nothing"),
        pytest.param(lambda: RECORD.tls[:-1], id="cut"),
        pytest.param(lambda: certificate(ec.generate_private_key(ec.SECP384R1())), id="P-384"),
        pytest.param(lambda: certificate(ec.generate_private_key(ec.SECP256K1())), id="secp256k1"),
        pytest.param(lambda: certificate(rsa.generate_private_key(65537, 2048)), id="RSA"),
        pytest.param(
            lambda: RECORD.tls.replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")),
            id="an unknown curve",
        ),
        pytest.param(
            lambda: RECORD.tls.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d027f")),
            id="an unknown algorithm",
        ),
    ],
)
def test_another_certificate_is_refused(made: Callable[[], bytes]) -> None:
    der = made()
    with pytest.raises(Malformed):
        certificate_key(der)


def test_the_largest_record_fits_a_log_line() -> None:
    governance = [signer(f"founder {at}") for at in range(MAX_KEYS)]
    operators = [private_key(f"operator {at}", "ecdsa-p256") for at in range(MAX_OPERATORS)]
    largest = replace(RECORD, name="n" * 100, operators=tuple(make_certificate(key) for key in operators))
    bound = [*BOUND[:-1], *(HybridSigner((key,)) for key in operators)]
    entry = parse_entry(sign_content(largest, *governance, *bound).line)
    assert check_node_record(entry, KeySet(tuple(key.public for key in governance), MAX_KEYS)) == largest
