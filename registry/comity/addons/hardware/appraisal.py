"""Appraisal of hardware evidence: what the owner's pins, reference values and revocation data say about it.

An appraisal is a list of findings for each device. Each finding passes, fails or is unknown; a device is *verified* if
its chain, its kind, its signature and its challenge pass and nothing fails, *failed* if something fails, and *claimed*
otherwise: without a pinned root nothing can be said. What an attester leaves out is unknown and fails nothing. The
appraisal does not say where a machine is, or that the attester did not relay the challenge to another machine. Source:
RFC 9334.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from comity.addons.hardware.certificates import VendorChain, check_revocation
from comity.addons.hardware.devices import DeviceKind, Report, device_id, judge_kind
from comity.addons.hardware.reports import GpuReport, SnpReport, TdxQuote
from comity.rules.hardware_evidence import (
    KINDS,
    NVIDIA,
    SEV_SNP,
    TDX,
    AppraisalRow,
    Device,
    DeviceResult,
    HardwareEvidence,
    State,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen


@frozen
class HardwarePins:
    """What the owner trusts.

    Attributes:
        roots: certificates (DER) of vendors, by kind of evidence.
        reference: for a kind of evidence, the accepted values of facts by name, such as {"driver": {"550.90.07"}}.
        revocations: revocation lists and OCSP responses (DER), from any source.
    """

    roots: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    reference: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    revocations: tuple[bytes, ...] = ()


@frozen
class _Parsed:
    """A parsed report in the terms that all kinds share."""

    report: Report
    chain: VendorChain
    challenge: bytes
    facts: tuple[tuple[str, str], ...]
    debuggable: bool

    def verify_signature(self, path: VendorChain) -> None:
        if isinstance(self.report, TdxQuote):
            self.report.verify()
        else:
            self.report.verify(path)


def appraise(evidence: HardwareEvidence, nonce: bytes, pins: HardwarePins, at: int) -> tuple[DeviceResult, ...]:
    """Appraise each device by itself; one device's fault says nothing about the others.

    Args:
        nonce: 32 bytes, the challenge that the devices had to sign.
        at: the time at which chains and revocation data are judged, POSIX seconds; the owner's, not the attester's.

    Raises nothing: what is malformed is a failed finding.
    """
    results = tuple(_appraise_device(device, nonce, pins, at) for device in evidence.devices)
    return _mark_repeated(results)


def _appraise_device(device: Device, nonce: bytes, pins: HardwarePins, at: int) -> DeviceResult:
    try:
        parsed = _parse(device)
        path, chain = _judge_chain(device.kind, parsed.chain, pins, at)
        known = path or parsed.chain
        digest = device_id(parsed.report, known, certified=path is not None)
    except ComityError as error:
        return DeviceResult(device.kind, None, "", (), (AppraisalRow("evidence", "fail", str(error)),))
    kind = judge_kind(parsed.report, known)
    findings = [chain, _kind_finding(kind, certified=path is not None), _signature_finding(parsed, known)]
    if path is not None:
        findings.append(_revocation_finding(device.kind, path, pins.revocations, at))
    findings.append(_challenge_finding(parsed, nonce))
    if parsed.debuggable:
        findings.append(
            AppraisalRow("isolation", "fail", "the host may debug the machine, so nothing in it is confidential")
        )
    facts = (("model", kind.model), *parsed.facts) if kind.model else parsed.facts
    findings += _reference_findings(facts, pins.reference.get(device.kind, {}))
    return DeviceResult(device.kind, digest, kind.model, facts, tuple(findings))


def _judge_chain(kind: str, chain: VendorChain, pins: HardwarePins, at: int) -> tuple[VendorChain | None, AppraisalRow]:
    """The chain up to a pinned root, if there is one, and the finding."""
    roots = pins.roots.get(kind, ())
    if not roots:
        return None, AppraisalRow("chain", "unknown", f"no root for {kind} is pinned")
    try:
        path = chain.check(roots, at)
    except ComityError as error:
        return None, AppraisalRow("chain", "fail", str(error))
    root = path.certificates[-1].subject.rfc4514_string()[:100]
    return path, AppraisalRow("chain", "pass", f"{len(path.certificates)} certificates, up to the pinned {root}")


def _kind_finding(kind: DeviceKind, *, certified: bool) -> AppraisalRow:
    if kind.state == "pass" and not certified:
        return AppraisalRow("kind", "unknown", f"{kind.text}, by certificates under no pinned root")
    return AppraisalRow("kind", kind.state, kind.text)


def _signature_finding(parsed: _Parsed, path: VendorChain) -> AppraisalRow:
    try:
        parsed.verify_signature(path)
    except ComityError as error:
        return AppraisalRow("signature", "fail", str(error))
    return AppraisalRow("signature", "pass", "the report is signed by the key of the leaf certificate")


def _revocation_finding(kind: str, path: VendorChain, data: Sequence[bytes], at: int) -> AppraisalRow:
    """The leaf of a GPU is issued by the chip itself, which signs no revocation data: what can be revoked is the
    chip's own authority."""
    revocable = VendorChain(path.certificates[1:]) if kind == NVIDIA and len(path.certificates) > 1 else path
    try:
        found = check_revocation(revocable, data, at)
    except ComityError as error:
        return AppraisalRow("revocation", "fail", str(error))
    if found.state == "stale":
        return AppraisalRow("revocation", "unknown", f"{found.text}; newer data are due")
    return AppraisalRow("revocation", "pass" if found.state == "good" else "unknown", found.text)


def _challenge_finding(parsed: _Parsed, nonce: bytes) -> AppraisalRow:
    if parsed.challenge == nonce + bytes(len(parsed.challenge) - len(nonce)):
        return AppraisalRow("challenge", "pass", "made for this challenge")
    return AppraisalRow("challenge", "fail", "made for another challenge: it may be old, or of another offer")


def _reference_findings(
    facts: Sequence[tuple[str, str]], reference: Mapping[str, frozenset[str]]
) -> list[AppraisalRow]:
    if not reference:
        return [AppraisalRow("reference values", "unknown", "no reference values at hand")]
    stated = dict(facts)
    findings = []
    for name, accepted in sorted(reference.items()):
        value = stated.get(name)
        state: State = "unknown" if value is None else "pass" if value in accepted else "fail"
        text = {
            "unknown": f"the report does not state {name}",
            "pass": f"{name} {value} is a reference value",
            "fail": f"{name} {value} is no reference value",
        }[state]
        findings.append(AppraisalRow(f"reference {name}", state, text))
    return findings


def _mark_repeated(results: tuple[DeviceResult, ...]) -> tuple[DeviceResult, ...]:
    """Fail each device that the same evidence states a second time."""
    seen: set[Digest] = set()
    marked = []
    for result in results:
        if result.device in seen:
            twice = AppraisalRow("device", "fail", "the same device is stated twice")
            result = replace(result, findings=(*result.findings, twice))
        elif result.device is not None:
            seen.add(result.device)
        marked.append(result)
    return tuple(marked)


def _parse(device: Device) -> _Parsed:
    """Raises Malformed (HARDWARE-EVIDENCE)."""
    assert device.kind in KINDS  # `Device.read` refuses others
    if device.kind == TDX:
        quote = TdxQuote.parse(device.report)
        return _Parsed(quote, quote.chain, quote.report_data, _tdx_facts(quote), quote.debuggable)
    chain = VendorChain.parse_der(device.certificates)
    if device.kind == SEV_SNP:
        snp = SnpReport.parse(device.report)
        return _Parsed(snp, chain, snp.report_data, _snp_facts(snp), snp.debuggable)
    gpu = GpuReport.parse(device.report)
    return _Parsed(gpu, chain, gpu.nonce, _gpu_facts(gpu), False)


def _snp_facts(report: SnpReport) -> tuple[tuple[str, str], ...]:
    tcb = tuple((f"{part} version", version) for part, version in report.tcb)
    return (("measurement", report.measurement.hex()), ("chip", report.chip_id.hex()[:32]), *tcb)


def _tdx_facts(quote: TdxQuote) -> tuple[tuple[str, str], ...]:
    registers = tuple((f"RTMR{index}", value.hex()) for index, value in enumerate(quote.rtmr))
    module = ("TDX module version", quote.tcb_svn.hex())
    enclave = (("QE signer", quote.qe_signer.hex()), ("QE version", str(quote.qe_svn)))
    return (("MRTD", quote.mr_td.hex()), *registers, module, *enclave)


def _gpu_facts(report: GpuReport) -> tuple[tuple[str, str], ...]:
    digest = sha256(b"".join(bytes([index]) + value for index, value in sorted(report.measurements.items())))
    return (*report.versions.items(), ("measurements", digest))
