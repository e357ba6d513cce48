"""Certificate chains of hardware vendors: up to a root that the owner pinned, at a given time, with revocation data.

Vendors' certificates follow no web profile (a serial number of zero, no names to match, validity up to the year 9999),
so that `cryptography.x509.verification` refuses them. The rules here are those of RFC 5280, section 6.1, that apply:
each certificate is signed by the next one and names it as its issuer; all but the leaf are authorities within their
path length; every certificate is valid at the time; no unknown extension is critical. Names are not constrained.

Revocation data are certificate revocation lists (RFC 5280, section 5) and OCSP responses (RFC 6960) that somebody
mirrored: they are judged by their signatures, at the same time as the chain. Without them nothing is known.
"""

from __future__ import annotations

import contextlib
import datetime
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from comity.rules.hardware_evidence import MAX_CERTIFICATE, MAX_CERTIFICATES
from comity.trust.encoding import Digest, printable, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen

MAX_REVOCATION: Final = 1 << 20
MAX_REVOCATIONS: Final = 64

_E = TypeVar("_E", bound=x509.ExtensionType)

_KNOWN_CRITICAL: Final = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
_MAX_TIME: Final = 253_402_300_799  # the end of year 9999, the latest time in a certificate


@frozen
class Revocation:
    """What the revocation data at hand say about a chain.

    Attributes:
        state: `good` if data cover every certificate below the root, `stale` if some of these data are older than
            their next update, `unknown` if a certificate is not covered.
        text: one sentence, with the age of the oldest data.
    """

    state: Literal["good", "stale", "unknown"]
    text: str


@frozen
class VendorChain:
    """Certificates of one device, leaf first. Not judged before `check`."""

    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def parse_pem(cls, text: bytes) -> VendorChain:
        """Read concatenated PEM certificates, leaf first. Raises Malformed (HARDWARE-EVIDENCE)."""
        return cls(load_pem(text))

    @classmethod
    def parse_der(cls, certificates: Sequence[bytes]) -> VendorChain:
        """Read certificates (DER), leaf first. Raises Malformed (HARDWARE-EVIDENCE)."""
        if not 1 <= len(certificates) <= MAX_CERTIFICATES:
            raise _malformed(f"expected 1 to {MAX_CERTIFICATES} certificates, got {len(certificates)}")
        return cls(tuple(_load(der) for der in certificates))

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def leaf_key(self) -> ec.EllipticCurvePublicKey:
        """The leaf's key. Raises Malformed (HARDWARE-EVIDENCE) unless it is on an elliptic curve."""
        try:
            key = self.leaf.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _malformed("the leaf's key cannot be read") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise _malformed("the leaf's key is not an ECDSA key")
        return key

    @property
    def leaf_digest(self) -> Digest:
        """SHA-256 of the first certificate. It names these bytes, and no device: see `devices.device_id`."""
        return sha256(self.leaf.public_bytes(Encoding.DER))

    @property
    def leaf_name(self) -> str:
        """The leaf's subject, at most 100 printable characters."""
        return _name(self.leaf)

    @property
    def leaf_pem(self) -> bytes:
        return self.leaf.public_bytes(Encoding.PEM)

    def to_der(self) -> tuple[bytes, ...]:
        return tuple(each.public_bytes(Encoding.DER) for each in self.certificates)

    def check(self, roots: Sequence[bytes], at: int) -> VendorChain:
        """The chain that ends at one of `roots` (DER), complete and with every certificate valid at `at`.

        Certificates after a pinned root are left out; a root that the chain does not carry is added.

        Raises Untrusted (HARDWARE-UNTRUSTED).
        """
        path = VendorChain(tuple(self._up_to_root([_load(der) for der in roots])))
        for depth, (child, issuer) in enumerate(zip(path.certificates, path.certificates[1:], strict=False)):
            _check_issued(child, issuer)
            _check_authority(issuer, depth)
        for certificate in path.certificates:
            _check_valid(certificate, at)
            _check_critical(certificate)
        return path

    def root(self) -> VendorChain:
        """The root of a vendor's chain file, alone: the only certificate, or the one that the others lead up to, such
        as an ASK with its ARK. Dates are not judged: `check` does.

        Raises Untrusted (HARDWARE-UNTRUSTED) if there is no such root, or a certificate is a device's.
        """
        if len(self.certificates) == 1:
            return self
        roots = [each for each in self.certificates if each.subject == each.issuer and _is_issued(each, each)]
        if len(roots) != 1:
            raise _untrusted(f"it has {len(self.certificates)} certificates, of which {len(roots)} are roots")
        for each in self.certificates:
            _check_authority(each, 0)
            self._check_leads_up(each, roots[0])
        return VendorChain((roots[0],))

    def _check_leads_up(self, lower: x509.Certificate, root: x509.Certificate) -> None:
        """Raise Untrusted unless certificates of this file lead from `lower` up to `root`."""
        at = lower
        for _ in self.certificates:
            if at == root:
                return
            at = next((each for each in self.certificates if each.subject == at.issuer and _is_issued(at, each)), at)
        raise _untrusted(f"{_name(lower)} does not lead up to {_name(root)}")

    def _up_to_root(self, roots: list[x509.Certificate]) -> Iterator[x509.Certificate]:
        for certificate in self.certificates:
            yield certificate
            if certificate in roots:
                return
        last = self.certificates[-1]
        named = [root for root in roots if root.subject == last.issuer]
        if named:  # a vendor may have several roots of one name, of which one signed this
            yield next((root for root in named if _is_issued(last, root)), named[0])
            return
        why = f"no pinned root issued {_name(last)}; its issuer is {last.issuer.rfc4514_string()[:100]}"
        raise Untrusted("chain refused", why=why, hint="comity trust hardware --help", code="HARDWARE-UNTRUSTED")


def load_pem(text: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM text. Raises Malformed (HARDWARE-EVIDENCE)."""
    if len(text) > MAX_CERTIFICATES * MAX_CERTIFICATE * 2:
        raise _malformed(f"{len(text)} bytes of certificates are too many")
    with _quiet():
        found = _read_eagerly(lambda: x509.load_pem_x509_certificates(text))
    if len(found) > MAX_CERTIFICATES:
        raise _malformed(f"at most {MAX_CERTIFICATES} certificates are allowed, got {len(found)}")
    return found


@frozen
class RevocationData:
    """What a file with revocation data is: a `list` or a `response`, who made it and when, and when newer data are due
    (POSIX seconds; None if it does not say), as it claims."""

    kind: Literal["list", "response"]
    issuer: str
    made: int
    due: int | None

    @classmethod
    def parse(cls, data: bytes) -> RevocationData:
        """Read a revocation list or an OCSP response (DER). No signature is checked. Raises Malformed."""
        lists, responses = _load_revocations([data])
        if lists:
            made, due = lists[0].last_update_utc, lists[0].next_update_utc
            return cls("list", printable(lists[0].issuer.rfc4514_string())[:100], *_seconds(made, due))
        if responses:
            each = list(responses[0].responses)
            oldest = min(each, key=lambda single: single.this_update_utc) if each else None
            if oldest is not None:
                return cls("response", "an OCSP responder", *_seconds(oldest.this_update_utc, oldest.next_update_utc))
        raise Malformed(
            "revocation data are malformed",
            why="expected a certificate revocation list or a successful OCSP response, in DER",
            code="HARDWARE-EVIDENCE",
        )


def _seconds(made: datetime.datetime, due: datetime.datetime | None) -> tuple[int, int | None]:
    return int(made.timestamp()), None if due is None else int(due.timestamp())


def check_revocation(path: VendorChain, data: Sequence[bytes], at: int) -> Revocation:
    """Look for each certificate below the root in revocation lists and OCSP responses (DER).

    Data that are malformed, later than `at`, or not signed by the issuer count as absent: a stranger may mirror them.
    Data past their next update still revoke, and no longer say `good`.

    Raises Untrusted (HARDWARE-UNTRUSTED) if one says that a certificate is revoked or on hold.
    """
    lists, responses = _load_revocations(data[:MAX_REVOCATIONS])
    answers: list[tuple[bool, datetime.datetime]] = []
    missing: list[str] = []
    for certificate, issuer in zip(path.certificates, path.certificates[1:], strict=False):
        found = [*_ask_lists(certificate, issuer, lists, at), *_ask_responses(certificate, issuer, responses, at)]
        if found:
            answers.append(max(found))
        else:
            missing.append(_name(certificate))
    if missing or not answers:
        names = ", ".join(missing) or "the chain"
        return Revocation("unknown", f"no revocation data at hand for {names}")
    oldest = min(updated for _, updated in answers)
    text = f"no certificate is revoked by data of {oldest:%Y-%m-%d} and later"
    return Revocation("good", text) if all(fresh for fresh, _ in answers) else Revocation("stale", text)


def _load_revocations(
    data: Sequence[bytes],
) -> tuple[list[x509.CertificateRevocationList], list[ocsp.OCSPResponse]]:
    lists: list[x509.CertificateRevocationList] = []
    responses: list[ocsp.OCSPResponse] = []
    for item in data:
        if len(item) > MAX_REVOCATION:
            continue
        with contextlib.suppress(ValueError, x509.InvalidVersion):
            found = x509.load_der_x509_crl(item)
            _ = (found.issuer, found.last_update_utc, found.next_update_utc)  # the library parses them when asked
            lists.append(found)
            continue
        with contextlib.suppress(ValueError):
            response = ocsp.load_der_ocsp_response(item)
            if response.response_status == ocsp.OCSPResponseStatus.SUCCESSFUL:
                _ = list(response.responses)
                responses.append(response)
    return lists, responses


def _ask_lists(
    certificate: x509.Certificate, issuer: x509.Certificate, lists: list[x509.CertificateRevocationList], at: int
) -> Iterator[tuple[bool, datetime.datetime]]:
    """Yield (fresh, made at) for each list that covers the certificate. One with a critical extension lists only a part
    (RFC 5280, section 5.2: changes since another list, or some certificates): it revokes what it lists, and says
    nothing about others."""
    for each in lists:
        try:
            if each.issuer != issuer.subject or not each.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # other key types raise TypeError
                continue
            entry = each.get_revoked_certificate_by_serial_number(certificate.serial_number)
            made, until = each.last_update_utc, each.next_update_utc
            reason = _reason(entry) if entry is not None else ""
            partial = any(extension.critical for extension in each.extensions)
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
            continue
        if made > _datetime(at):
            continue
        if entry is not None and entry.revocation_date_utc <= _datetime(at):
            raise _revoked(certificate, reason, made)
        if not partial:
            yield until is None or _datetime(at) <= until, made


def _ask_responses(
    certificate: x509.Certificate, issuer: x509.Certificate, responses: list[ocsp.OCSPResponse], at: int
) -> Iterator[tuple[bool, datetime.datetime]]:
    for response in responses:
        for single in response.responses:
            try:
                if not _answers(single, certificate, issuer) or not _signed_response(response, issuer, at):
                    continue
            except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.ExtensionNotFound):
                continue
            made, until = single.this_update_utc, single.next_update_utc
            if made > _datetime(at) or single.certificate_status == ocsp.OCSPCertStatus.UNKNOWN:
                continue
            if single.certificate_status == ocsp.OCSPCertStatus.REVOKED:
                reason = single.revocation_reason.value if single.revocation_reason else "no reason given"
                raise _revoked(certificate, reason, made)
            yield until is not None and _datetime(at) <= until, made


def _answers(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the response is about this certificate of this issuer."""
    if single.serial_number != certificate.serial_number:
        return False
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    return (single.issuer_name_hash, single.issuer_key_hash) == (request.issuer_name_hash, request.issuer_key_hash)


def _signed_response(response: ocsp.OCSPResponse, issuer: x509.Certificate, at: int) -> bool:
    """Whether the issuer signed the response, or a responder that the issuer named (RFC 6960, section 4.2.2.2)."""
    signer = issuer
    for candidate in response.certificates[:MAX_CERTIFICATES]:
        if candidate == issuer:
            continue
        candidate.verify_directly_issued_by(issuer)
        usage = candidate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.OCSP_SIGNING in usage:
            _check_valid(candidate, at)
            signer = candidate
            break
    algorithm = response.signature_hash_algorithm
    if algorithm is None:
        return False
    _check_signature(signer, response.signature, response.tbs_response_bytes, algorithm)
    return True


def _check_signature(
    signer: x509.Certificate, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm
) -> None:
    key = signer.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(algorithm))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, message, padding.PKCS1v15(), algorithm)
    else:
        raise UnsupportedAlgorithm("a responder signs with ECDSA or RSA")


def _check_issued(child: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise _untrusted(f"{_name(child)} is not signed by {_name(issuer)}") from error


def _is_issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        _check_issued(child, issuer)
    except Untrusted:
        return False
    return True


def _check_authority(issuer: x509.Certificate, below: int) -> None:
    """`below` is the number of authorities between this one and the leaf."""
    constraints = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise _untrusted(f"{_name(issuer)} may not sign certificates")
    if constraints.path_length is not None and below > constraints.path_length:
        raise _untrusted(
            f"{_name(issuer)} allows {constraints.path_length} authorities below it, and {below} are there"
        )


def _check_valid(certificate: x509.Certificate, at: int) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= _datetime(at) <= end:
        why = f"{_name(certificate)} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, not on {_datetime(at):%Y-%m-%d}"
        raise _untrusted(why)


def _check_critical(certificate: x509.Certificate) -> None:
    for each in certificate.extensions:
        if each.critical and not isinstance(each.value, _KNOWN_CRITICAL):
            raise _untrusted(f"{_name(certificate)} has a critical extension {each.oid.dotted_string} that is unknown")


def extension_bytes(certificate: x509.Certificate, oid: str) -> bytes | None:
    """The DER value of a vendor's extension; None if it is absent."""
    for each in certificate.extensions:
        if each.oid.dotted_string == oid and isinstance(each.value, x509.UnrecognizedExtension):
            return each.value.value
    return None


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    for each in certificate.extensions:
        if isinstance(each.value, kind):
            return each.value
    return None


def _load(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise _malformed(f"a certificate has at most {MAX_CERTIFICATE} bytes, got {len(der)}")
    with _quiet():
        return _read_eagerly(lambda: [x509.load_der_x509_certificate(der)])[0]


def _read_eagerly(load: Callable[[], list[x509.Certificate]]) -> tuple[x509.Certificate, ...]:
    """The certificates, with the parts that the library parses only when they are asked for."""
    try:
        found = load()
        for certificate in found:
            for _ in (certificate.subject, certificate.issuer, certificate.extensions):
                pass
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise _malformed(f"a certificate cannot be read: {str(error)[:100]}") from error
    return tuple(found)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """AMD's VCEK certificates have the serial number 0, of which the library warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        return "no reason given"


def _revoked(certificate: x509.Certificate, reason: str, made: datetime.datetime) -> Untrusted:
    held = "on hold" if reason == x509.ReasonFlags.certificate_hold.value else f"revoked ({reason})"
    return _untrusted(f"{_name(certificate)} is {held}, by data of {made:%Y-%m-%d}")


def _name(certificate: x509.Certificate) -> str:
    return printable(certificate.subject.rfc4514_string())[:100] or "a certificate without a subject"


def _datetime(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(at, _MAX_TIME), datetime.UTC)


def _malformed(why: str) -> Malformed:
    return Malformed("certificates are malformed", why=why, code="HARDWARE-EVIDENCE")


def _untrusted(why: str) -> Untrusted:
    return Untrusted("chain refused", why=why, code="HARDWARE-UNTRUSTED")
