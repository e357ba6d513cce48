"""Hardware evidence and challenges in files: as vendors' tools write them, and as `comity offer challenge` does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity.addons.hardware.certificates import VendorChain, load_pem
from comity.bounded_file import read_bounded
from comity.rules.hardware_evidence import (
    CHALLENGE_SCHEMA,
    MAX_CERTIFICATE,
    MAX_CERTIFICATES,
    MAX_DEVICES,
    MAX_EVIDENCE,
    MAX_REPORT,
    NVIDIA,
    SEV_SNP,
    TDX,
    Challenge,
    Device,
    HardwareEvidence,
)
from comity.trust.encoding import (
    Fields,
    Json,
    b64decode,
    parse_json,
)
from comity.trust.errors import Malformed

_PAIRS: Final = re.compile(r"(?:[0-9a-f]{2})+\Z")


def read_gpu_list(data: bytes) -> HardwareEvidence:
    """Read the list that NVIDIA's tools write: [{"arch","certificate","evidence","nonce"}], one item a GPU.

    `certificate` is a base64 PEM chain, `evidence` a base64 report, `nonce` its nonce in hex, which must be the one in
    the report. Other members are ignored. Raises Malformed (HARDWARE-EVIDENCE).
    """
    value = parse_json(data, limit=MAX_EVIDENCE, what="evidence list")
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MAX_DEVICES:
        why = f"expected a list of 1 to {MAX_DEVICES} GPUs"
        raise Malformed("evidence list is malformed", why=why, code="HARDWARE-EVIDENCE")
    return HardwareEvidence(tuple(_gpu(item) for item in value))


def _gpu(item: Json) -> Device:
    fields = Fields(item, "evidence list")
    report = b64decode(fields.text("evidence", most=-(-MAX_REPORT // 3) * 4))
    chain = VendorChain(load_pem(b64decode(fields.text("certificate", most=MAX_CERTIFICATES * MAX_CERTIFICATE * 2))))
    nonce = fields.text("nonce")
    if not _PAIRS.match(nonce) or report[4:36] != bytes.fromhex(nonce):
        raise Malformed(
            "evidence list is malformed", why="a report has another nonce than its item", code="HARDWARE-EVIDENCE"
        )
    return Device(NVIDIA, report, chain.to_der())


def challenge_json(challenge: Challenge) -> dict[str, Json]:
    """The challenge as the file of `comity offer challenge`, with its nonce."""
    document = {"schema": CHALLENGE_SCHEMA, "subject": challenge.subject, **challenge.to_json()}
    return {**document, "nonce": challenge.nonce.hex()}


def read_challenge(file: Path) -> Challenge:
    """Read the file that `comity offer challenge` wrote. Raises Malformed."""
    fields = Fields(parse_json(read_bounded(file, 4096), limit=4096, what=str(file)), "challenge")
    fields.constant("schema", CHALLENGE_SCHEMA)
    subject, nonce = fields.digest("subject"), fields.text("nonce", most=64)
    challenge = Challenge.read(fields, subject=subject)
    if challenge.nonce.hex() != nonce:
        raise Malformed(f"{file} was changed", why="its nonce is not that of its challenge")
    return challenge


def read_evidence(lists: Sequence[Path], snp: Sequence[tuple[Path, Path]], tdx: Sequence[Path]) -> HardwareEvidence:
    """The devices of GPU lists, of SEV-SNP reports with their certificates, and of TDX quotes. Raises Malformed."""
    devices: list[Device] = []
    for file in lists:
        devices += read_gpu_list(read_bounded(file, MAX_EVIDENCE)).devices
    for report, certificates in snp:
        chain = VendorChain(load_pem(read_bounded(certificates, MAX_EVIDENCE))).to_der()
        devices.append(Device(SEV_SNP, read_bounded(report, MAX_EVIDENCE), chain))
    devices += [Device(TDX, read_bounded(file, MAX_EVIDENCE)) for file in tdx]
    return HardwareEvidence.parse(HardwareEvidence(tuple(devices)).encode())
