"""Which device made evidence: what its vendor's certificates say that it is, and one identifier of it.

A vendor's root certifies devices of many kinds: NVIDIA's signs GPUs and NVLink switches alike. So the names in the
chain must be those of the kind, from the vendor's authority down to the leaf, and agree about the chip:

    nvidia-gpu    `NVIDIA GH100 Provisioner ICA 1`, `GH100 A01 GSP BROM` (the chip's own authority), `GH100 … FMC LF`
    amd-sev-snp   `SEV-Milan` (the ASK), `SEV-VCEK`
    intel-tdx     `Intel SGX PCK Platform CA`, `Intel SGX PCK Certificate`; the quote is of Intel's TD quoting enclave,
                  since the owner of a machine may run another enclave that the same PCK certifies

A device has one identifier, whatever certificates it has. A certificate is none: each ECDSA signature (r, s) has a
second valid form (r, n-s), so the same certificate has two digests. A key that is derived from versions of firmware is
none either: a chip has one such key for each version. What stays is

    nvidia-gpu    the public key of the chip's own authority
    amd-sev-snp   the chip id
    intel-tdx     the platform's provisioning id (PPID), in the PCK certificate

These are the vendor's word, so they identify a device only under a pinned root; without it the leaf's public key does,
whose holder signed the report. Keys are hashed in one encoding, whatever the certificate has. Sources: NVIDIA's
published samples and attestation SDK (the chip is the name of the second certificate); AMD 57230, table 8; Intel, SGX
PCK Certificate and Certificate Revocation List Profile, section 1.3.5, and the identity of the TD quoting enclave that
the Provisioning Certification Service publishes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from comity.addons.hardware.certificates import VendorChain, extension_bytes
from comity.addons.hardware.reports import GpuReport, SnpReport, TdxQuote
from comity.rules.hardware_evidence import GPUS
from comity.trust.encoding import Digest, printable, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

Report: TypeAlias = SnpReport | TdxQuote | GpuReport

SWITCHES: Final = ("LS_10",)
_CHIP: Final = r"(?P<chip>[A-Z]{2}_?[0-9]{2,3})"
_NVIDIA_NAMES: Final = (
    re.compile(rf"{_CHIP} [A-Z][0-9]{{2}} [A-Z]{{3}} FMC LF\Z"),
    re.compile(rf"{_CHIP} [A-Z][0-9]{{2}} [A-Z]{{3}} BROM\Z"),
    re.compile(rf"NVIDIA {_CHIP} Provisioner ICA [0-9]{{1,6}}\Z"),
)
"""Of the leaf, of the chip's own authority, and of the vendor's authority that certified it."""
_ASK: Final = re.compile(r"SEV-(?P<product>[A-Z][a-z]+)\Z")
_SNP_PRODUCTS: Final = ("Milan", "Genoa")
_VCEK: Final = "SEV-VCEK"
_PCK: Final = "Intel SGX PCK Certificate"
_PCK_AUTHORITIES: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
_TD_QE_SIGNER: Final = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
_TD_QE_PRODUCT: Final = 2
_SGX_EXTENSIONS: Final = "1.2.840.113741.1.13.1"
_PPID: Final = bytes.fromhex("060a2a864886f84d010d0101")
"""DER of the object identifier 1.2.840.113741.1.13.1.1."""
_PPID_SIZE: Final = 16


@frozen
class DeviceKind:
    """Whether a chain is of a device of the kind that the evidence states.

    Attributes:
        state: `pass`, `fail`, or `unknown` for a model that is not known here.
        model: the chip or product that the certificates name, such as `GH100`; empty if they name none.
        text: one sentence.
    """

    state: Literal["pass", "fail", "unknown"]
    model: str
    text: str


def judge_kind(report: Report, chain: VendorChain) -> DeviceKind:
    """Compare the names in `chain`, leaf first, with those of the report's kind. The chain is not judged here."""
    if isinstance(report, GpuReport):
        return _gpu_kind(chain)
    if isinstance(report, SnpReport):
        return _snp_kind(chain)
    return _tdx_kind(report, chain)


def device_id(report: Report, chain: VendorChain, *, certified: bool) -> Digest:
    """SHA-256 of the device's identifier.

    Args:
        certified: whether `chain` ends at a pinned root. If not, its names and extensions are anybody's, and the
            identifier is the leaf's public key.

    Raises Malformed (HARDWARE-EVIDENCE) if a certificate has no key or id that can be read.
    """
    if not certified:
        return _key_digest(chain.leaf)
    if isinstance(report, SnpReport):
        return sha256(report.chip_id)
    if isinstance(report, TdxQuote):
        return sha256(_ppid(chain.leaf))
    return _key_digest(chain.certificates[min(1, len(chain.certificates) - 1)])


def _gpu_kind(chain: VendorChain) -> DeviceKind:
    names = [_common_name(certificate) for certificate in chain.certificates[: len(_NVIDIA_NAMES)]]
    chips = [match["chip"] for name, form in zip(names, _NVIDIA_NAMES, strict=False) if (match := form.match(name))]
    if switch := next((chip for chip in chips if chip in SWITCHES), None):
        return DeviceKind("fail", switch, f"the certificates are of an NVLink switch ({switch}), not of a GPU")
    if len(chips) != len(_NVIDIA_NAMES):
        return DeviceKind("fail", "", f"the certificates are not of an NVIDIA GPU: {_shown(names)}")
    if len(set(chips)) != 1:
        return DeviceKind("fail", "", f"the certificates name different chips: {', '.join(chips)}")
    if chips[0] not in GPUS:
        return DeviceKind("unknown", chips[0], f"the chip {chips[0]} is not known to this version")
    return DeviceKind("pass", chips[0], f"a GPU with the chip {chips[0]} ({', '.join(GPUS[chips[0]])})")


def _snp_kind(chain: VendorChain) -> DeviceKind:
    names = [_common_name(certificate) for certificate in chain.certificates[:2]]
    if len(names) < 2 or names[0] != _VCEK or not (match := _ASK.match(names[1])):
        return DeviceKind("fail", "", f"the certificates are not of a chip with SEV-SNP: {_shown(names)}")
    product = match["product"]
    if product not in _SNP_PRODUCTS:
        return DeviceKind("unknown", product, f"the product {product} is not known to this version")
    return DeviceKind("pass", product, f"a processor of the line {product}")


def _tdx_kind(quote: TdxQuote, chain: VendorChain) -> DeviceKind:
    names = [_common_name(certificate) for certificate in chain.certificates[:2]]
    if len(names) < 2 or names[0] != _PCK or names[1] not in _PCK_AUTHORITIES:
        return DeviceKind("fail", "", f"the certificates are not of a processor with SGX and TDX: {_shown(names)}")
    if (quote.qe_signer, quote.qe_product) != (_TD_QE_SIGNER, _TD_QE_PRODUCT):
        return DeviceKind("fail", "", "the quote is not of Intel's quoting enclave for trust domains")
    return DeviceKind("pass", "TDX", "a processor with TDX")


def _shown(names: list[str]) -> str:
    return " under ".join(name or "no name" for name in names)


def _common_name(certificate: x509.Certificate) -> str:
    """The only common name of the subject; empty if it has none or several."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = found[0].value if len(found) == 1 else ""
    return printable(value)[:100] if isinstance(value, str) else ""


def _key_digest(certificate: x509.Certificate) -> Digest:
    """SHA-256 of the public key as SubjectPublicKeyInfo, written again here: a certificate may hold it compressed."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed("the key of a certificate cannot be read") from error
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _ppid(pck: x509.Certificate) -> bytes:
    extensions = extension_bytes(pck, _SGX_EXTENSIONS)
    for item in _sequence(extensions or b""):
        if item.startswith(_PPID):
            kind, value = next(_elements(item[len(_PPID) :]), (0, b""))
            if (kind, len(value)) == (4, _PPID_SIZE):
                return value
    raise _malformed("the PCK certificate names no platform")


def _sequence(der: bytes) -> Iterator[bytes]:
    """The contents of the sequences that are the elements of one sequence."""
    for kind, body in _elements(der):
        if kind == 0x30:
            yield from (inner for each, inner in _elements(body) if each == 0x30)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each element; ends at what is no element. Tags of one byte, lengths of at most three."""
    at = 0
    while len(der) >= at + 2:
        tag, size, at = der[at], der[at + 1], at + 2
        if size >= 0x80:
            octets = size - 0x80
            if not 1 <= octets <= 2:
                return
            size, at = int.from_bytes(der[at : at + octets], "big"), at + octets
        if size > len(der) - at:
            return
        yield tag, der[at : at + size]
        at += size


def _malformed(why: str) -> Malformed:
    return Malformed("certificates are malformed", why=why, code="HARDWARE-EVIDENCE")
