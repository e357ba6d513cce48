"""The kinds of hardware evidence, by the names that documents and commands use.

The document that carries hardware evidence, the challenge that makes it fresh, and the `attested` statement.

The challenge is a document that names what is attested and a checkpoint of the attester's log; its SHA-256 is the nonce
that the devices sign. Nobody knows the root of a checkpoint before it exists, so evidence with this nonce is younger
than the checkpoint, and evidence for one offer cannot be shown for another. Formats that sign 64 bytes take the nonce
followed by 32 zero bytes. Source: protocol, section 5; RFC 9334, section 10 (freshness by epoch).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from comity.rules.hardware.certificates import MAX_CERTIFICATE, MAX_CERTIFICATES, VendorChain, load_pem
from comity.trust.codec import JsonMerged, JsonNumber, JsonObject, JsonPath, JsonRead
from comity.trust.content import ByAuthor, Content, SideFile, SubjectDigest
from comity.trust.encoding import (
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    canonical,
    parse_canonical,
    parse_json,
    sha256,
)
from comity.trust.errors import Malformed
from comity.trust.statement import SideObject, Statement, Subject
from comity.trust.statement_kinds import ATTESTED
from comity.trust.tlog.note import check_name

SEV_SNP: Final = "amd-sev-snp"
TDX: Final = "intel-tdx"
NVIDIA: Final = "nvidia-gpu"
KINDS: Final = (SEV_SNP, TDX, NVIDIA)
SCHEMA: Final = "comity/hardware-evidence/v1"
CHALLENGE_SCHEMA: Final = "comity/hardware-challenge/v1"
MAX_DEVICES: Final = 64
MAX_REPORT: Final = 32_768
MAX_EVIDENCE: Final = 1 << 20
"""Bytes; 64 GPUs need about 900,000."""
_PAIRS: Final = re.compile(r"(?:[0-9a-f]{2})+\Z")


@dataclass(frozen=True, slots=True)
class Challenge(JsonObject):
    """What the devices sign, by its SHA-256.

    Attributes:
        subject: the digest of the offer, or of another document that is attested.
        origin: the attester's log.
        size, root: a checkpoint of this log.
        key: the id of the attester's online key.
    """

    subject: SubjectDigest
    origin: Annotated[str, JsonRead(check_name, "origin"), JsonPath("log")]
    size: Annotated[int, JsonNumber(1)]
    root: Digest
    key: Digest

    @property
    def nonce(self) -> bytes:
        """32 bytes: SHA-256 of the challenge in canonical JSON."""
        document = {"schema": CHALLENGE_SCHEMA, "subject": self.subject, **self.to_json()}
        return bytes.fromhex(sha256(canonical(document)))


@dataclass(frozen=True, slots=True)
class Device:
    """Evidence of one device: a report, and its certificates (DER, leaf first); none where the report carries them."""

    kind: str
    report: bytes
    certificates: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, Json]:
        certificates = [b64encode(der) for der in self.certificates]
        return {"certificates": certificates, "kind": self.kind, "report": b64encode(self.report)}

    @classmethod
    def read(cls, value: Json) -> Device:
        """Raises Malformed. Report and certificates are not parsed."""
        fields = Fields(value, "hardware evidence")
        kind = fields.choice("kind", KINDS)
        report = b64decode(fields.text("report", most=-(-MAX_REPORT // 3) * 4))
        certificates = tuple(b64decode(item) for item in fields.items("certificates", most=MAX_CERTIFICATES))
        fields.done()
        if any(len(der) > MAX_CERTIFICATE for der in certificates):
            raise Malformed(
                "hardware evidence is malformed", why="a certificate is too large", code="HARDWARE-EVIDENCE"
            )
        return cls(kind, report, certificates)


@dataclass(frozen=True, slots=True)
class HardwareEvidence:
    """Evidence of one to 64 devices of one attester, over one challenge."""

    devices: tuple[Device, ...]

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical({"devices": [device.to_json() for device in self.devices], "schema": SCHEMA})

    @classmethod
    def parse(cls, data: bytes) -> HardwareEvidence:
        """Raises Malformed. The reports are not parsed: `appraise` judges each by itself."""
        fields = Fields(parse_canonical(data, limit=MAX_EVIDENCE, what="hardware evidence"), "hardware evidence")
        fields.constant("schema", SCHEMA)
        devices = tuple(Device.read(item) for item in fields.items("devices", least=1, most=MAX_DEVICES))
        fields.done()
        return cls(devices)


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


@dataclass(frozen=True, slots=True)
class Attested(Content):
    """Hardware evidence of a node's machines. Source: protocol, section 5.

        {"by":{"node":"51aa…"},"challenge":{"key":"51aa…","log":"node-ch/log","root":"9f2c…","size":18100},
         "evidence":{"digest":"0a1b…","size":9120},"objects":[{"digest":"0a1b…","size":9120}]}

    The subject is what is attested; the evidence is a side object. A statement proves only that its author signed it:
    `appraise` judges the evidence.
    """

    predicate: ClassVar = ATTESTED
    by: ByAuthor
    challenge: Annotated[Challenge, JsonMerged("challenge")]
    evidence: Annotated[SideObject, SideFile(MAX_EVIDENCE), "hardware-evidence.json."]

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("", self.challenge.subject),)

    def check(self, statement: Statement) -> None:
        if self.challenge.key != self.by.id:
            raise self.malformed("its challenge names another key than its author's")
