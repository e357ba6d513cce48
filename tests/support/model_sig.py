"""Folders signed by OpenSSF Model Signing, authorities that issue certificates for it, and ways to damage both."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.trust.artifact import FileEntry
from comity.trust.encoding import b64decode, b64encode, sha256
from comity.trust.evidence import MODEL_SIG, FoundFile
from comity.trust.keys import PrivateKey, ecdsa_der
from comity.trust.model_signing.bundle import (
    Bundle,
    ChainMaterial,
    KeyMaterial,
    ModelKey,
    ModelStatement,
    sign_model,
    statement_of_files,
)
from comity.trust.model_signing.judging import ModelSigningRule, judge
from comity.trust.statement import PAYLOAD_TYPE, pae
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FILES: Mapping[str, bytes] = {
    "config.json": b'{"architectures":["Tiny"]}\n',
    "empty.txt": b"",
    "tokenizer/vocab.txt": "a\nhé\n".encode(),
    "weights.safetensors": bytes(range(256)) * 20,
}
KEY = PrivateKey("ecdsa-p256", ec.derive_private_key(0x20261203, ec.SECP256R1()))
"""Not drawn: the signatures of one key in a hundred are shorter, and the sizes of their files are in written rows."""
PUBLIC = ModelKey.of_raw(KEY.public)


RULE = ModelSigningRule(keys=(PUBLIC,))


def found(files: Mapping[str, bytes] = FILES) -> tuple[FoundFile, ...]:
    return tuple(FoundFile(path, len(data), sha256(data)) for path, data in sorted(files.items()))


def listed(files: Mapping[str, bytes] = FILES) -> ModelStatement:
    return statement_of_files("tiny", (FileEntry(path, len(data), sha256(data)) for path, data in files.items()))


def signed(files: Mapping[str, bytes] = FILES, key: PrivateKey = KEY) -> bytes:
    """A `model.sig` over these files."""
    return sign_model(listed(files), key)


def outcome(data: bytes, files: tuple[FoundFile, ...] | None = None, rule: ModelSigningRule = RULE, **more: Any) -> str:
    """The outcome for a `model.sig`, in one line; over the files of `signed` if none are given."""
    judged = judge(data, found() if files is None else files, rule, **more)
    return f"{judged.state}/{judged.cause}: {judged.text}"


def folder(path: Path, files: Mapping[str, bytes] = FILES, signature: bytes | None = None) -> Path:
    """The files on the disk, with their `model.sig`."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / MODEL_SIG).write_bytes(signed(files) if signature is None else signature)
    return path


def changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    """The bundle with `change` made to its JSON; the signature stays what it was."""
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def resigned(change: Callable[[Any], None], files: Mapping[str, bytes] = FILES, key: PrivateKey = KEY) -> bytes:
    """A `model.sig` whose signer signed a statement other than that of `statement_of_files`."""
    document = json.loads(listed(files).encode())
    change(document)
    return sealed(json.dumps(document).encode(), key)


def sealed(payload: bytes, key: PrivateKey = KEY) -> bytes:
    material = KeyMaterial(ModelKey.of_raw(key.public).hint)
    return Bundle(material, payload, ecdsa_der(key.alg, key.sign(pae(PAYLOAD_TYPE, payload)))).encode()


def sealed_as_before_v1(payload: bytes, key: PrivateKey = KEY) -> bytes:
    """Signed over the wrong encoding of model_signing 0.2, which its later versions still accept."""
    faulty = f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()
    signature = ecdsa_der(key.alg, key.sign(faulty))
    return Bundle(KeyMaterial(ModelKey.of_raw(key.public).hint), payload, signature).encode()


def with_second_signature(data: bytes) -> bytes:
    def add(document: Any) -> None:
        document["dsseEnvelope"]["signatures"].append({"sig": b64encode(b"bogus"), "keyid": ""})

    return changed(data, add)


def flipped(data: bytes) -> bytes:
    """The bundle with one bit of its signature flipped."""

    def flip(document: Any) -> None:
        signature = document["dsseEnvelope"]["signatures"][0]
        turned = bytearray(b64decode(signature["sig"]))
        turned[-1] ^= 1
        signature["sig"] = b64encode(bytes(turned))

    return changed(data, flip)


@dataclass(frozen=True)
class Authority:
    """An authority that issues certificates."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def root(cls, name: str = "Root", years: tuple[int, int] = (2020, 2045)) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(name, key, _issue(name, key.public_key(), name, key, years, authority=True))

    def below(self, name: str = "Intermediate", years: tuple[int, int] = (2020, 2045)) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return Authority(name, key, _issue(name, key.public_key(), self.name, self.key, years, authority=True))

    def leaf(
        self,
        name: str | x509.Name = "Model Lab",
        years: tuple[int, int] = (2024, 2030),
        *,
        usage: bool | None = True,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        curve: ec.EllipticCurve | None = None,
    ) -> Leaf:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        made = _issue(name, key.public_key(), self.name, self.key, years, usage=usage, extensions=extensions)
        return Leaf(key, made, (self.certificate,))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Leaf:
    """A certificate with its key, and the certificates above it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    above: tuple[x509.Certificate, ...]

    @property
    def private_pem(self) -> bytes:
        encryption = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, files: Mapping[str, bytes] = FILES) -> bytes:
        """A `model.sig` with this certificate, and those above it."""
        payload, digest = listed(files).encode(), hashes.SHA256() if self.key.curve.key_size == 256 else hashes.SHA512()
        signature = self.key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(digest))
        chain = (self.certificate, *self.above)
        material = ChainMaterial(tuple(certificate_der(each) for each in chain))
        return Bundle(material, payload, signature).encode()


def certificate_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _issue(
    subject: str | x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    years: tuple[int, int],
    *,
    authority: bool = False,
    usage: bool | None = True,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(subject) if isinstance(subject, str) else subject)
        .issuer_name(_named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(years[0], 1, 1))
        .not_valid_after(datetime.datetime(years[1], 1, 1))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if authority or usage is not None:
        builder = builder.add_extension(_usage(signs=bool(usage) and not authority, issues=authority), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


CODE_SIGNING = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
UNHEARD_OF = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)


def posix(year: int, month: int = 6) -> int:
    return int(datetime.datetime(year, month, 1, tzinfo=datetime.UTC).timestamp())


def policy_toml(extra: str = "", *, require: Sequence[str] = ("artifact", "bytes", "signatures")) -> str:
    """A policy that lists the key in `lab.pub`."""
    return (
        'schema = "comity/policy/v1"\n[model_signing]\nkeys = ["lab.pub"]\n'
        f"{extra}\n[rows]\nrequire = {json.dumps(list(require))}\n"
    )
