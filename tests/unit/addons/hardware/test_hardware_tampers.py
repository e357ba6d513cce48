"""Each sample of hardware evidence verifies, and each tampering of it is refused with the finding that the table names.

The tables name every field of a format with its position, as the specifications have them, and the findings that become
`fail` if a bit of it changes. Every signed field is in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.certificates import VendorChain
from comity.addons.hardware.reports import TdxQuote
from comity.rules.hardware_evidence import KINDS, TDX, Device, DeviceResult, HardwareEvidence
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from support.hardware import (
    AT,
    DAY,
    NOW,
    authority,
    certificates_checked_once,
    flipped,
    gpu,
    issue,
    ocsp_response,
    revocable,
    revocation_list,
    snp,
    tdx,
    vendor,
    whole_revocation_data,
)

NONCE: Final = bytes(range(32))
CA: Final = vendor()
ROOT: Final = CA.above[0]
PINS: Final = HardwarePins(roots=dict.fromkeys(KINDS, (ROOT.der,)))
DATA: Final = whole_revocation_data(CA)
"""Revocation data that cover every certificate and revoke none."""
SAMPLES: Final[dict[str, Device]] = {
    "gpu": gpu(CA, NONCE),
    "snp": snp(CA, NONCE),
    "tdx 4": tdx(CA, NONCE),
    "tdx 5": tdx(CA, NONCE, version=5),
}
MADE: Final[dict[str, Callable[[], Device]]] = {
    "gpu": lambda: gpu(CA, NONCE),
    "snp": lambda: snp(CA, NONCE),
    "tdx 4": lambda: tdx(CA, NONCE),
    "tdx 5": lambda: tdx(CA, NONCE, version=5),
}


@dataclass(frozen=True)
class Field:
    """A field at `offset` of a report: a bit changed in it fails with exactly these findings, or with one of several
    sets if the format gives the bits different meanings."""

    name: str
    offset: int
    size: int
    fails: tuple[frozenset[str], ...]


def field(name: str, offset: int, size: int, *fails: str) -> Field:
    return Field(name, offset, size, tuple(frozenset(each.split()) for each in fails or ("signature",)))


SNP: Final = (
    field("version", 0, 4, "evidence", "signature"),
    field("guest SVN", 4, 4),
    field("policy", 8, 8, "signature", "signature isolation"),
    field("family id", 0x10, 16),
    field("image id", 0x20, 16),
    field("VMPL", 0x30, 4),
    field("signature algorithm", 0x34, 4, "evidence"),
    field("current TCB", 0x38, 8),
    field("platform information", 0x40, 8),
    field("flags", 0x48, 4, "signature", "evidence"),
    field("reserved", 0x4C, 4),
    field("report data", 0x50, 64, "signature challenge"),
    field("measurement", 0x90, 48),
    field("host data", 0xC0, 32),
    field("id key digest", 0xE0, 48),
    field("author key digest", 0x110, 48),
    field("report id", 0x140, 32),
    field("report id of the migration agent", 0x160, 32),
    field("reported TCB", 0x180, 8),
    field("reserved", 0x188, 24),
    field("chip id", 0x1A0, 64),
    field("committed TCB and versions, reserved", 0x1E0, 0x2A0 - 0x1E0),
    field("r", 0x2A0, 72),
    field("s", 0x2E8, 72),
    field("after the signature", 0x330, 1184 - 0x330, "evidence"),
)
_BODY: Final = (
    ("TEE TCB SVN", 0, 16, ("signature",)),
    ("measurement of the module", 16, 48, ("signature",)),
    ("signer of the module", 64, 48, ("signature",)),
    ("attributes of the module", 112, 8, ("signature",)),
    ("attributes", 120, 8, ("signature", "signature isolation")),
    ("XFAM", 128, 8, ("signature",)),
    ("MRTD", 136, 48, ("signature",)),
    ("configuration", 184, 48, ("signature",)),
    ("owner", 232, 48, ("signature",)),
    ("owner's configuration", 280, 48, ("signature",)),
    ("RTMR0", 328, 48, ("signature",)),
    ("RTMR1", 376, 48, ("signature",)),
    ("RTMR2", 424, 48, ("signature",)),
    ("RTMR3", 472, 48, ("signature",)),
    ("report data", 520, 64, ("signature challenge",)),
)
_BODY_5: Final = (("second TCB SVN", 584, 16, ("signature",)), ("measurement of the service", 600, 48, ("signature",)))


def _quote(version: int) -> tuple[Field, ...]:
    begin = 48 if version == 4 else 54
    body = _BODY if version == 4 else (*_BODY, *_BODY_5)
    data = begin + (584 if version == 4 else 648)
    typed = () if version == 4 else (field("body's type", 48, 2, "evidence"), field("body's size", 50, 4, "evidence"))
    certified = data + 4 + 128
    return (
        field("version", 0, 2, "evidence"),
        field("key type", 2, 2, "evidence"),
        field("TEE type", 4, 4, "evidence"),
        field("versions, vendor, user data", 8, 40),
        *typed,
        *(field(name, begin + offset, size, *fails) for name, offset, size, fails in body),
        field("size of the signature data", data, 4, "evidence"),
        field("signature", data + 4, 64),
        field("attestation key", data + 68, 64),
        field("certification's type", certified, 2, "evidence"),
        field("certification's size", certified + 2, 4, "evidence"),
        field("QE report", certified + 6, 128),
        field("signer of the QE", certified + 134, 32, "signature kind"),
        field("QE report", certified + 166, 96),
        field("product of the QE", certified + 262, 2, "signature kind"),
        field("QE report", certified + 264, 126),
        field("QE signature", certified + 390, 64),
        field("size of QE authentication data", certified + 454, 2, "evidence"),
        field("QE authentication data", certified + 456, 4),
        field("chain's type", certified + 460, 2, "evidence"),
        field("chain's size", certified + 462, 4, "evidence"),
    )


_RECORD: Final = 45
_BLOCK: Final = 55
_OPAQUE: Final = _RECORD + 3 * _BLOCK + 32
GPU: Final = (
    field("request", 0, 4, "evidence"),
    field("nonce", 4, 32, "signature challenge"),
    field("slot", 36, 1),
    field("response", 37, 2, "evidence"),
    field("parameters", 39, 2),
    field("number of measurements", 41, 1, "evidence"),
    field("size of the record", 42, 3, "evidence"),
    *(
        part
        for at in range(_RECORD, _RECORD + 3 * _BLOCK, _BLOCK)
        for part in (
            field("index", at, 1, "signature", "evidence"),
            field("specification", at + 1, 1, "evidence"),
            field("size of the block", at + 2, 2, "evidence"),
            field("type", at + 4, 1),
            field("size of the value", at + 5, 2, "evidence"),
            field("value", at + 7, 48),
        )
    ),
    field("responder's nonce", _RECORD + 3 * _BLOCK, 32),
    field("size of the opaque data", _OPAQUE, 2, "evidence"),
    field("opaque data", _OPAQUE + 2, 13 + 9 + 11 + 1, "signature", "evidence"),
    field("signature", _OPAQUE + 2 + 34, 96),
)
TABLES: Final[dict[str, tuple[Field, ...]]] = {"gpu": GPU, "snp": SNP, "tdx 4": _quote(4), "tdx 5": _quote(5)}
ROWS: Final = [(sample, each) for sample, table in TABLES.items() for each in table]


def appraised(device: Device, pins: HardwarePins = PINS, nonce: bytes = NONCE, at: int = AT) -> DeviceResult:
    (result,) = appraise(HardwareEvidence((device,)), nonce, pins, at)
    return result


def failed(result: DeviceResult) -> frozenset[str]:
    return frozenset(finding.name for finding in result.findings if finding.state == "fail")


@pytest.fixture(autouse=True, scope="module")
def _certificates_are_checked_once() -> Iterator[None]:
    """Thousands of changed reports have the same few certificates."""
    with certificates_checked_once():
        yield


@pytest.mark.parametrize("sample", SAMPLES)
def test_each_sample_verifies_and_passes_every_row(sample: str) -> None:
    result = appraised(SAMPLES[sample], replace(PINS, revocations=DATA))
    assert result.state == "verified"
    states = {finding.name: finding.state for finding in result.findings}
    passed = ("chain", "kind", "signature", "revocation", "challenge")
    assert states == dict.fromkeys(passed, "pass") | {"reference values": "unknown"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_table_of_a_sample_leaves_no_byte_out(sample: str) -> None:
    report = SAMPLES[sample].report
    pem = report.find(b"-----BEGIN")
    end = 0
    for each in TABLES[sample]:
        assert each.offset == end, each
        end += each.size
    assert end == (len(report) if pem < 0 else pem), "certificates are judged by their own signatures"


@pytest.mark.parametrize(("sample", "part"), ROWS, ids=[f"{s}, {each.name} at {each.offset}" for s, each in ROWS])
def test_a_bit_changed_in_a_field_is_refused_by_name(sample: str, part: Field) -> None:
    """Every bit of the first, the middle and the last byte."""
    for offset in {part.offset, part.offset + part.size // 2, part.offset + part.size - 1}:
        for bit in range(8):
            result = appraised(flipped(SAMPLES[sample], offset, bit))
            assert failed(result) in part.fails, (offset, bit, result)


def leaf(device: Device) -> x509.Certificate:
    if device.kind == TDX:
        return TdxQuote.parse(device.report).chain.leaf
    return VendorChain.parse_der(device.certificates).leaf


def with_leaf_of(device: Device, other: Device) -> Device:
    """`device` with the certificate of another device."""
    if device.kind != TDX:
        return replace(device, certificates=other.certificates)
    mine, theirs = (leaf(each).public_bytes(Encoding.PEM) for each in (device, other))
    begin = device.report.find(b"-----BEGIN")
    pem = device.report[begin:].replace(mine, theirs)
    head = bytearray(device.report[:begin])
    for at, size in ((begin - 4, len(pem)), (_certification(device), 0), (_signature_data(device), 0)):
        longer = len(pem) - (len(device.report) - begin)
        new = size or int.from_bytes(head[at : at + 4], "little") + longer
        head[at : at + 4] = new.to_bytes(4, "little")
    return replace(device, report=bytes(head) + pem)


def _place(device: Device, name: str) -> int:
    (sample,) = (name for name, made in SAMPLES.items() if made is device)
    return next(each.offset for each in TABLES[sample] if each.name == name)


def _certification(device: Device) -> int:
    return _place(device, "certification's size")


def _signature_data(device: Device) -> int:
    return _place(device, "size of the signature data")


def held_list(device: Device) -> HardwarePins:
    return replace(PINS, revocations=(revocation_list(authority(CA, device.kind), [revocable(device)]), *DATA))


def held_response(device: Device) -> HardwarePins:
    issuer = authority(CA, device.kind)
    return replace(PINS, revocations=(ocsp_response(issuer, revocable(device), ocsp.OCSPCertStatus.REVOKED), *DATA))


def held_authority(device: Device) -> HardwarePins:
    return replace(PINS, revocations=(*DATA, revocation_list(ROOT, [CA.certificate])))


def held_by_old_data(device: Device) -> HardwarePins:
    issuer = authority(CA, device.kind)
    old = revocation_list(issuer, [revocable(device)], made=NOW - 9 * DAY, due=NOW - DAY)
    return replace(PINS, revocations=(old, *DATA))


WITH_DATA: Final = replace(PINS, revocations=DATA)
OTHER_ROOT: Final = HardwarePins(roots=dict.fromkeys(KINDS, (vendor().above[0].der,)), revocations=DATA)
NAMESAKE: Final = HardwarePins(roots=dict.fromkeys(KINDS, (issue("Vendor root").der,)), revocations=DATA)
TAMPERS: Final[dict[str, tuple[Callable[[str], DeviceResult], str]]] = {
    "another nonce": (lambda s: appraised(SAMPLES[s], WITH_DATA, nonce=bytes(32)), "challenge"),
    "a nonce that differs in its last bit": (
        lambda s: appraised(SAMPLES[s], WITH_DATA, nonce=NONCE[:-1] + b"\x1e"),
        "challenge",
    ),
    "a wrong root": (lambda s: appraised(SAMPLES[s], OTHER_ROOT), "chain"),
    "a root of the same name": (lambda s: appraised(SAMPLES[s], NAMESAKE), "chain"),
    "a swapped leaf": (lambda s: appraised(with_leaf_of(SAMPLES[s], MADE[s]()), WITH_DATA), "signature"),
    "an expired certificate": (lambda s: appraised(SAMPLES[s], WITH_DATA, at=AT + 2000 * 86_400), "chain"),
    "a certificate before its time": (lambda s: appraised(SAMPLES[s], WITH_DATA, at=AT - 2000 * 86_400), "chain"),
    "a certificate on hold, by a list": (lambda s: appraised(SAMPLES[s], held_list(SAMPLES[s])), "revocation"),
    "one on hold, by a response": (lambda s: appraised(SAMPLES[s], held_response(SAMPLES[s])), "revocation"),
    "one on hold, by data that are old": (lambda s: appraised(SAMPLES[s], held_by_old_data(SAMPLES[s])), "revocation"),
    "an authority on hold": (lambda s: appraised(SAMPLES[s], held_authority(SAMPLES[s])), "revocation"),
    "one byte less": (lambda s: appraised(_report(s, SAMPLES[s].report[:-1])), "evidence"),
    "half of it": (lambda s: appraised(_report(s, SAMPLES[s].report[: len(SAMPLES[s].report) // 2])), "evidence"),
    "nothing": (lambda s: appraised(_report(s, b"")), "evidence"),
    "one byte more": (lambda s: appraised(_report(s, SAMPLES[s].report + b"\1")), "evidence"),
    "itself twice": (lambda s: appraised(_report(s, SAMPLES[s].report * 2)), "evidence"),
    "more than any report has": (lambda s: appraised(_report(s, SAMPLES[s].report + bytes(40_000))), "evidence"),
}


def _report(sample: str, report: bytes) -> Device:
    return replace(SAMPLES[sample], report=report)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("tamper", TAMPERS)
def test_each_tampering_is_refused_by_name(tamper: str, sample: str) -> None:
    make, name = TAMPERS[tamper]
    result = make(sample)
    assert result.state == "failed"
    assert failed(result) == {name}, result


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_shorter_report_is_refused(sample: str) -> None:
    report = SAMPLES[sample].report
    for size in range(len(report)):
        result = appraised(_report(sample, report[:size]))
        assert result.state == "failed", size
        assert failed(result) == {"evidence"}, size
