"""Certificates of nodes, read and made byte by byte; a library for X.509 is the other opinion."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime

import pytest
from attackers.records import USAGE
from comity.trust.errors import Malformed
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.node_records import (
    NodeCertificate,
    certificate_key,
    read_node_certificate,
    server_name,
    signed_part,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from support.world import private_key

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""
KEYS = st.integers(1, ORDER - 1).map(lambda secret: ec.derive_private_key(secret, ec.SECP256R1()))


def public(key: ec.EllipticCurvePrivateKey) -> PublicKey:
    encoding = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    return PublicKey("ecdsa-p256", key.public_key().public_bytes(*encoding))


def by_a_library(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    made = public(key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server_name(made))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), int(made.id[:32], 16) | 1)
    builder = builder.not_valid_before(datetime(1970, 1, 1)).not_valid_after(datetime(9999, 12, 31, 23, 59, 59))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(USAGE, critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName(server_name(made))])
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256())


@given(KEYS)
def test_a_library_makes_the_same_certificate(key: ec.EllipticCurvePrivateKey) -> None:
    other = by_a_library(key)
    assert signed_part(public(key)) == other.tbs_certificate_bytes
    found = read_node_certificate(other.public_bytes(serialization.Encoding.DER))
    assert found == NodeCertificate(public(key), other.signature)
    found.verify()


@pytest.mark.parametrize("leading", ["00", "0000", "007f", "0080", "7f", "80", "ff"])
def test_a_serial_has_no_superfluous_byte(leading: str) -> None:
    key = private_key("a node", "ecdsa-p256").public
    object.__setattr__(key, "id", leading + key.id[len(leading) :])
    whole = NodeCertificate(key, private_key("a node", "ecdsa-p256").sign(b"any")).der
    assert x509.load_der_x509_certificate(whole).serial_number == int(key.id[:32], 16) | 1


SIGNER = ec.derive_private_key(7, ec.SECP256R1())
MADE = by_a_library(SIGNER).public_bytes(serialization.Encoding.DER)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, len(MADE) - 1), st.integers(1, 255))
def test_what_is_read_here_a_library_reads_alike(at: int, change: int) -> None:
    """A changed byte changes the key, or its certificate is of another form, or only the signature is another one."""
    changed = bytearray(MADE)
    changed[at] ^= change
    found = read_node_certificate(bytes(changed))
    if found is None:
        return
    assert found.key == public(SIGNER)
    other = x509.load_der_x509_certificate(bytes(changed))
    assert (other.signature, other.public_key()) == (found.signature, SIGNER.public_key())
    with pytest.raises(Malformed, match="not a node certificate"):
        found.verify()


@given(st.binary(max_size=600) | st.integers(0, len(MADE)).map(lambda end: MADE[:end]))
def test_other_bytes_are_no_node_certificate(data: bytes) -> None:
    assert (read_node_certificate(data) is None) == (data != MADE)


@given(st.binary(max_size=300))
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_signature_of_any_length_reads_back_or_is_refused(signature: bytes) -> None:
    whole = NodeCertificate(public(SIGNER), signature)
    found = read_node_certificate(whole.der)
    assert found in (whole, None)
    assert (found is not None) == (len(signature) < 127)
    assert certificate_key(whole.der) == public(SIGNER)


def test_a_point_beside_the_curve_is_no_key() -> None:
    key = PublicKey("ecdsa-p256", b"\x04" + bytes(63) + b"\x05")
    assert read_node_certificate(NodeCertificate(key, b"").der) is None
    with pytest.raises(Malformed):
        certificate_key(NodeCertificate(key, b"").der)


def test_a_record_of_a_node_is_read_without_a_parser_of_certificates() -> None:
    made = NodeCertificate(PrivateKey.generate("ecdsa-p256").public, b"signature").der
    script = (
        "import sys\nfrom comity.trust.node_records import certificate_key\nimport comity.wire.tls\n"
        f"certificate_key(bytes.fromhex('{made.hex()}'))\nprint('cryptography.x509' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]
