"""Public and private keys, and their signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from comity.trust.encoding import b64encode, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import (
    RAW_SIZES,
    SIGNATURE_SIZES,
    HybridSigner,
    PrivateKey,
    PublicKey,
    VerifyingKey,
    ecdsa_der,
    ecdsa_signature,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from support.world import private_key, signer

MESSAGE = b"what is signed"
ALGORITHMS = sorted(RAW_SIZES)


def pem(key: Any) -> bytes:
    made: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_is_its_keys_own(alg: str) -> None:
    key, other = private_key("a", alg), private_key("b", alg)
    signature = key.sign(MESSAGE)
    key.public.verify(signature, MESSAGE)
    damaged = bytes([signature[0] ^ 1]) + signature[1:]
    for public, claimed, message in (
        (key.public, signature, MESSAGE + b"."),
        (key.public, damaged, MESSAGE),
        (key.public, signature[:-1], MESSAGE),
        (key.public, signature + b"\0", MESSAGE),
        (key.public, b"", MESSAGE),
        (other.public, signature, MESSAGE),
    ):
        with pytest.raises(Untrusted):
            public.verify(claimed, message)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_has_the_length_that_its_algorithm_has(alg: str) -> None:
    assert len(private_key("a", alg).sign(MESSAGE)) == SIGNATURE_SIZES[alg]


@pytest.mark.parametrize(("alg", "curve"), [("ecdsa-p256", ec.SECP256R1()), ("ecdsa-p384", ec.SECP384R1())])
def test_an_ecdsa_signature_has_one_spelling_with_the_lower_s(alg: str, curve: ec.EllipticCurve) -> None:
    key, size = private_key("a", alg), SIGNATURE_SIZES[alg] // 2
    order = curve.group_order
    for number in range(8):
        message = b"%d" % number
        made = key.sign(message)
        key.public.verify(made, message)
        low = int.from_bytes(made[size:], "big")
        assert low <= order // 2
        with pytest.raises(Untrusted):
            key.public.verify(made[:size] + (order - low).to_bytes(size, "big"), message)
        with pytest.raises(Untrusted):
            key.public.verify(ecdsa_der(alg, made), message)
        with pytest.raises(Untrusted):  # the same numbers, one of them with a zero before it
            key.public.verify(made[:size] + b"\0" + made[size:], message)


@pytest.mark.parametrize(("alg", "curve"), [("ecdsa-p256", ec.SECP256R1()), ("ecdsa-p384", ec.SECP384R1())])
def test_the_larger_half_of_the_order_is_no_lower_s(alg: str, curve: ec.EllipticCurve) -> None:
    size, half = SIGNATURE_SIZES[alg] // 2, curve.group_order // 2
    for s in (half, half + 1):
        assert ecdsa_signature(alg, 1, s) == b"\1".rjust(size, b"\0") + half.to_bytes(size, "big")
    assert ecdsa_der(alg, ecdsa_signature(alg, 1, half))
    with pytest.raises(ValueError, match="canonical"):
        ecdsa_der(alg, b"\1".rjust(size, b"\0") + (half + 1).to_bytes(size, "big"))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_private_key_reads_back_from_pem(alg: str) -> None:
    key = private_key("a", alg)
    again = PrivateKey.from_pem(key.to_pem())
    assert (again.alg, again.public) == (alg, key.public)
    key.public.verify(again.sign(MESSAGE), MESSAGE)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_generated_key_is_a_new_one(alg: str) -> None:
    assert PrivateKey.generate(alg).public != PrivateKey.generate(alg).public


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_private_key_is_not_in_its_repr(alg: str) -> None:
    key = private_key("a", alg)
    assert repr(key) == f"<PrivateKey {alg} {key.public.id[:16]}>"


def test_the_id_of_a_key_depends_on_its_algorithm() -> None:
    assert PublicKey("ed25519", bytes(32)).id == sha256(b"ed25519\n" + bytes(32))


@pytest.mark.parametrize("alg", ["", "ed448", "rsa-2048", "ED25519", "ml-dsa-87", "none"])
def test_an_unknown_algorithm_is_refused(alg: str) -> None:
    with pytest.raises(Malformed, match="unknown algorithm"):
        PublicKey(alg, bytes(32))
    with pytest.raises(Malformed, match="unknown algorithm"):
        PrivateKey.generate(alg)
    with pytest.raises(Malformed, match="unknown algorithm"):
        VerifyingKey.from_json({alg: b64encode(bytes(32))})


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_of_another_length_is_refused(alg: str) -> None:
    for size in (0, RAW_SIZES[alg] - 1, RAW_SIZES[alg] + 1):
        with pytest.raises(Malformed):
            PublicKey(alg, bytes(size))


@pytest.mark.parametrize("alg", ["ecdsa-p256", "ecdsa-p384"])
def test_a_point_that_is_not_on_the_curve_verifies_nothing(alg: str) -> None:
    with pytest.raises(Untrusted):
        PublicKey(alg, b"\x04" + b"\x01" * (RAW_SIZES[alg] - 1)).verify(private_key("a", alg).sign(MESSAGE), MESSAGE)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: b"", id="nothing"),
        pytest.param(lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", id="no key inside"),
        pytest.param(lambda: pem(rsa.generate_private_key(65537, 2048)), id="RSA"),
        pytest.param(lambda: pem(dsa.generate_private_key(1024)), id="DSA"),
        pytest.param(lambda: pem(x25519.X25519PrivateKey.generate()), id="X25519"),
        pytest.param(lambda: pem(ec.generate_private_key(ec.SECP521R1())), id="P-521"),
        pytest.param(
            lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            ),
            id="encrypted",
        ),
    ],
)
def test_a_pem_of_another_algorithm_is_refused(made: Callable[[], bytes]) -> None:
    data = made()
    with pytest.raises(Malformed):
        PrivateKey.from_pem(data)


def test_a_key_of_an_unknown_algorithm_is_refused() -> None:
    der = serialization.load_pem_private_key(pem(x25519.X25519PrivateKey.generate()), None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    unknown = der.replace(bytes.fromhex("06032b656e"), bytes.fromhex("06032b657f"))
    block = b"-----BEGIN PRIVATE KEY-----\n" + b64encode(unknown).encode() + b"\n-----END PRIVATE KEY-----\n"
    with pytest.raises(Malformed):
        PrivateKey.from_pem(block)


def test_a_composite_key_reads_back_and_is_sorted_by_algorithm() -> None:
    key = signer("a").public
    document = key.to_json()
    assert list(document) == ["ed25519", "ml-dsa-65"]
    assert VerifyingKey.from_json(dict(reversed(document.items()))) == key
    assert VerifyingKey.from_json(dict(reversed(document.items()))).id == key.id


def test_a_composite_key_is_post_quantum_if_one_half_is() -> None:
    assert signer("a").public.post_quantum
    assert not signer("a", ("ed25519",)).public.post_quantum


@pytest.mark.parametrize("value", [{}, [], None, "ed25519", {"ed25519": 5}, {"ed25519": "AA=="}])
def test_an_invalid_composite_key_is_refused(value: Any) -> None:
    with pytest.raises(Malformed):
        VerifyingKey.from_json(value)


def test_a_composite_key_has_at_most_two_halves_each_of_its_own_algorithm() -> None:
    ed, pq, ec256 = (private_key("a", alg).public for alg in ("ed25519", "ml-dsa-65", "ecdsa-p256"))
    for halves in ((), (ed, ec256, pq), (ed, private_key("b", "ed25519").public), (pq, ed)):
        with pytest.raises(Malformed):
            VerifyingKey(halves)
    with pytest.raises(Malformed):
        VerifyingKey.from_json(VerifyingKey((ed, pq)).to_json() | VerifyingKey((ec256,)).to_json())


def test_a_signer_makes_one_signature_for_each_half() -> None:
    made = HybridSigner.generate(("ml-dsa-65", "ed25519"))
    signatures = made.sign(MESSAGE)
    assert [keyid for keyid, _ in signatures] == [half.id for half in made.public.halves]
    for half, (_, signature) in zip(made.public.halves, signatures, strict=True):
        half.verify(signature, MESSAGE)
