"""The formats of hardware reports: what is read from which place, and what no report may hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.certificates import VendorChain
from comity.addons.hardware.reports import MAX_REPORT, BinaryReader, GpuReport, SnpReport, TdxQuote, nist_point
from comity.rules.hardware_evidence import Device, HardwareEvidence
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Untrusted
from cryptography.hazmat.primitives.asymmetric import ec
from support.hardware import AT, CHIP_ID, TD_QUOTING_ENCLAVE, gpu, issue, snp, tdx, vendor

NONCE = bytes(range(32))
CA = vendor()
GPU, SNP, QUOTE = gpu(CA, NONCE), snp(CA, NONCE), tdx(CA, NONCE)


def facts(device: Device) -> dict[str, str]:
    (result,) = appraise(HardwareEvidence((device,)), NONCE, HardwarePins(), AT)
    return dict(result.facts)


def item(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value


def block(index: int, value: bytes = b"v", specification: int = 1) -> bytes:
    inner = b"\1" + len(value).to_bytes(2, "little") + value
    return bytes([index, specification]) + len(inner).to_bytes(2, "little") + inner


def report(*blocks: bytes, opaque: bytes = b"", count: int | None = None) -> bytes:
    """A report of a GPU with a signature that does not verify."""
    record = b"".join(blocks)
    head = bytes([0x11, 0xE0, 1, 0xFF]) + NONCE + b"\0" + bytes([0x11, 0x60, 0, 0])
    head += bytes([len(blocks) if count is None else count]) + len(record).to_bytes(3, "little") + record
    return head + bytes(32) + len(opaque).to_bytes(2, "little") + opaque + bytes(96)


def test_integers_are_little_endian_and_every_byte_is_read_once() -> None:
    reader = BinaryReader(bytes([1, 2, 0, 9, 8]), "structure")
    assert (reader.integer(1), reader.integer(2), reader.rest()) == (1, 2, bytes([9, 8]))
    reader.done()
    assert reader.take(0) == b""
    with pytest.raises(Malformed, match="it ends at byte 5, and 1 bytes are expected at 5"):
        reader.take(1)
    reader = BinaryReader(b"ab", "structure")
    reader.take(1)
    with pytest.raises(Malformed, match="structure is malformed: 1 surplus byte follows its end at byte 1"):
        reader.done()


def test_a_gpu_states_its_versions_and_measurements() -> None:
    opaque = b"".join(
        [
            item(3, b"550.90\0\0"),
            item(6, bytes([1, 2, 3, 0x96, 7, 8])),
            item(99, b"?"),
            item(15, b"GH100"),
            item(17, b"x" * 65),
            item(18, b"\xff\x1b"),
        ]
    )
    read = GpuReport.parse(report(block(1, b"one"), block(255, b"last"), opaque=opaque))
    assert read.nonce == NONCE
    assert read.measurements == {1: b"one", 255: b"last"}
    versions = {"driver": "550.90", "VBIOS": "96.03.02.01.07.08", "chip": "GH100", "project": "x" * 64}
    assert read.versions == {**versions, "SKU": "\ufffd\\x1b"}
    assert GpuReport.parse(report()).measurements == {}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(report(block(0)), id="the index of all measurements"),
        pytest.param(report(block(1), block(1)), id="an index twice"),
        pytest.param(report(block(1, specification=2)), id="another specification"),
        pytest.param(report(block(1), count=2), id="fewer measurements than it says"),
        pytest.param(report(block(1), block(2), count=1), id="more measurements than it says"),
        pytest.param(report(b"\1\1\x05\0\1\1\0vx"), id="a byte after the value of a measurement"),
        pytest.param(report(opaque=item(3, b"1") * 2), id="a version twice"),
        pytest.param(report(opaque=item(6, bytes(5)) * 2), id="the VBIOS twice"),
        pytest.param(report(opaque=b"\3\0"), id="an item without its size"),
        pytest.param(report() + b"\0", id="a byte after the signature"),
        pytest.param(report(opaque=item(99, bytes(MAX_REPORT))), id="a large report"),
    ],
)
def test_a_gpu_report_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        GpuReport.parse(data)
    assert caught.value.code == "HARDWARE-EVIDENCE"


def test_the_largest_report_is_read() -> None:
    empty = len(report(opaque=item(99, b"")))
    largest = report(opaque=item(99, bytes(MAX_REPORT - empty)))
    assert len(largest) == MAX_REPORT
    assert GpuReport.parse(largest).versions == {}


def test_items_that_are_not_known_may_occur_several_times() -> None:
    assert GpuReport.parse(report(opaque=item(99, b"a") + item(99, b"b"))).versions == {}


def test_the_facts_of_each_kind_are_those_of_its_report() -> None:
    measured = b"".join(bytes([index]) + bytes([index] * 48) for index in (1, 2, 3))
    assert facts(GPU) == {
        "model": "GH100",
        "driver": "550.90.07",
        "VBIOS": "96.00.9F.00.01",
        "measurements": sha256(measured),
    }
    versions = {"boot loader version": "2", "TEE version": "0", "SNP version": "5", "microcode version": "200"}
    assert facts(SNP) == {"model": "Milan", "measurement": "6d" * 48, "chip": CHIP_ID[:16].hex(), **versions}
    registers = {f"RTMR{number}": "00" * 48 for number in range(4)}
    enclave = {"TDX module version": "00" * 16, "QE signer": TD_QUOTING_ENCLAVE.hex(), "QE version": "0"}
    assert facts(QUOTE) == {"model": "TDX", "MRTD": "74" * 48, **registers, **enclave}


def test_the_digest_of_measurements_does_not_depend_on_their_order() -> None:
    certificates = GPU.certificates
    one, other = (facts(replace(GPU, report=report(*blocks), certificates=certificates))["measurements"]
                  for blocks in ((block(1), block(2)), (block(2), block(1))))  # fmt: skip
    assert one == other == sha256(b"\1v\2v")


def changed(device: Device, offset: int, value: bytes) -> bytes:
    return device.report[:offset] + value + device.report[offset + len(value) :]


def test_an_snp_report_is_read_from_the_places_that_the_specification_names() -> None:
    places = {"guest_svn": (4, 4), "vmpl": (0x30, 4), "measurement": (0x90, 48), "host_data": (0xC0, 32)}
    places |= {"report_data": (0x50, 64), "reported_tcb": (0x180, 8), "chip_id": (0x1A0, 64)}
    for name, (offset, size) in places.items():
        value = bytes(range(1, size + 1))
        found = getattr(SnpReport.parse(changed(SNP, offset, value)), name)
        assert found == (value if isinstance(found, bytes) else int.from_bytes(value, "little")), name


@pytest.mark.parametrize(("version", "read"), [(1, False), (2, True), (3, True), (4, False)])
def test_versions_of_an_snp_report_that_are_read(version: int, read: bool) -> None:
    data = changed(SNP, 0, version.to_bytes(4, "little"))
    if read:
        assert SnpReport.parse(data).version == version
        return
    with pytest.raises(Malformed, match=f"version {version} is not supported, only 2 and 3"):
        SnpReport.parse(data)


@pytest.mark.parametrize("flags", [0b100, 0b1000, 0b10000])
def test_an_snp_report_that_a_vcek_did_not_sign_is_refused(flags: int) -> None:
    assert SnpReport.parse(changed(SNP, 0x48, bytes([0b11])))
    with pytest.raises(Malformed, match="not signed by a VCEK"):
        SnpReport.parse(changed(SNP, 0x48, bytes([flags])))


def test_a_quote_is_read_from_the_places_that_the_specification_names() -> None:
    body = 48
    places = {"tcb_svn": (0, 16), "mr_td": (136, 48), "report_data": (520, 64), "attributes": (120, 8)}
    for name, (offset, size) in places.items():
        value = bytes(range(1, size + 1))
        found = getattr(TdxQuote.parse(changed(QUOTE, body + offset, value)), name)
        assert found == (value if isinstance(found, bytes) else int.from_bytes(value, "little")), name
    for number in range(4):
        registers = TdxQuote.parse(changed(QUOTE, body + 328 + 48 * number, b"r" * 48)).rtmr
        assert registers == tuple(b"r" * 48 if number == at else bytes(48) for at in range(4))
    enclave = body + 584 + 4 + 128 + 6
    assert TdxQuote.parse(changed(QUOTE, enclave + 128, b"s" * 32)).qe_signer == b"s" * 32
    assert TdxQuote.parse(changed(QUOTE, enclave + 258, b"\1\2")).qe_svn == 0x0201


def test_zero_bytes_may_follow_a_quote_up_to_its_limit() -> None:
    assert TdxQuote.parse(QUOTE.report.ljust(32_768, b"\0")).chain == TdxQuote.parse(QUOTE.report).chain
    for data in (QUOTE.report.ljust(32_769, b"\0"), QUOTE.report + b"\0\1"):
        with pytest.raises(Malformed):
            TdxQuote.parse(data)


@pytest.mark.parametrize(("offset", "value"), [(0, 3), (0, 6), (2, 3), (4, 0x80)])
def test_a_quote_of_another_version_or_type_is_refused(offset: int, value: int) -> None:
    with pytest.raises(Malformed, match="are not supported"):
        TdxQuote.parse(changed(QUOTE, offset, bytes([value])))


def test_the_host_may_debug_if_the_owner_allowed_it() -> None:
    assert not SnpReport.parse(SNP.report).debuggable
    assert SnpReport.parse(changed(SNP, 10, b"\x08")).debuggable
    assert not TdxQuote.parse(QUOTE.report).debuggable
    assert TdxQuote.parse(changed(QUOTE, 48 + 120, b"\1")).debuggable
    assert not TdxQuote.parse(changed(QUOTE, 48 + 120, b"\2")).debuggable


def test_a_key_of_another_curve_signs_no_report() -> None:
    other = VendorChain((issue("GPU", CA, ca=False, curve=ec.SECP256R1()).certificate,))
    for read in (GpuReport.parse(GPU.report), SnpReport.parse(SNP.report)):
        with pytest.raises(Untrusted, match="not on P-384"):
            read.verify(other)
    quote = replace(TdxQuote.parse(QUOTE.report), chain=VendorChain((issue("PCK", CA, ca=False).certificate,)))
    with pytest.raises(Untrusted, match="not on P-256"):
        quote.verify()


def test_a_point_beside_the_curve_is_no_key() -> None:
    point = issue("PCK", CA, ca=False, curve=ec.SECP256R1()).key.public_key().public_numbers()
    raw = point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
    assert nist_point(ec.SECP256R1(), raw, "key").public_numbers() == point
    with pytest.raises(Malformed, match="not a point of the curve"):
        nist_point(ec.SECP256R1(), raw[:-1] + bytes([raw[-1] ^ 1]), "key")
