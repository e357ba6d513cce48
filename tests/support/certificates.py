"""TLS certificates that no node makes: issued ones, and ones that could issue."""

from __future__ import annotations

from datetime import datetime

from comity.trust.keys import PrivateKey
from comity.wire.tls import TlsIdentity
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NO_OTHER_USAGE = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def crafted(
    name: str,
    *,
    subject: str | None = None,
    issuer: TlsIdentity | None = None,
    ca: bool = False,
    may_sign: bool | None = None,
    critical: bool = True,
    san: bool = True,
) -> TlsIdentity:
    """A certificate for the DNS name `name`, self-signed without an issuer; `may_sign` None leaves keyUsage out."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer: ec.EllipticCurvePrivateKey = key
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject or name)])
    issuer_name = own
    if issuer is not None:
        issuer_name = x509.load_der_x509_certificate(issuer.certificate).subject
        loaded = serialization.load_pem_private_key(issuer.key.to_pem(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1))
        .not_valid_after(datetime(9999, 12, 31))
        .add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    if may_sign is not None:
        usage = x509.KeyUsage(digital_signature=True, key_cert_sign=may_sign, **NO_OTHER_USAGE)
        builder = builder.add_extension(usage, critical=critical)
    certificate = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return TlsIdentity(certificate, PrivateKey.from_pem(pem))
