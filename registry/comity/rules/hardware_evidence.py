"""Hardware evidence: the document that carries it, the challenge that makes it fresh, the `attested` statement, and
what an appraisal says of each device.

The challenge is a document that names what is attested and a checkpoint of the attester's log; its SHA-256 is the nonce
that the devices sign. Nobody knows the root of a checkpoint before it exists, so evidence with this nonce is younger
than the checkpoint, and evidence for one offer cannot be shown for another. Formats that sign 64 bytes take the nonce
followed by 32 zero bytes. Source: protocol, section 5; RFC 9334, section 10 (freshness by epoch).

What vendors sign is read and judged by an add-on (`comity.addons.hardware`). Without it nothing is known of a device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

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
    sha256,
)
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
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
MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE: Final = 8192
MAX_REPORT: Final = 32_768
MAX_EVIDENCE: Final = 1 << 20
"""Bytes; 64 GPUs need about 900,000."""


@frozen
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


@frozen
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


@frozen
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


@frozen
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


State: TypeAlias = Literal["pass", "fail", "unknown"]
DeviceState: TypeAlias = Literal["verified", "claimed", "failed"]
_REQUIRED: Final = ("chain", "kind", "signature", "challenge")


@frozen
class AppraisalRow:
    """One row of an appraisal: `name` passes, fails or is unknown, because of `text`."""

    name: str
    state: State
    text: str


@frozen
class DeviceResult:
    """The appraisal of one device.

    Attributes:
        device: the identifier of the device; empty if the evidence has none that can be read.
        model: the chip or product that its certificates name; empty if they name none.
        facts: what the report states, by name; verified only as far as `state` says.
    """

    kind: str
    device: Digest | None
    model: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[AppraisalRow, ...]

    @property
    def state(self) -> DeviceState:
        if any(finding.state == "fail" for finding in self.findings):
            return "failed"
        return "verified" if self._passed.issuperset(_REQUIRED) else "claimed"

    @property
    def certified(self) -> bool:
        """Whether the certificates lead to a pinned root: what they say is the vendor's word."""
        return "chain" in self._passed

    @property
    def signed_challenge(self) -> bool:
        """Whether the leaf's key signed the challenge; the issuer of the leaf is not checked here."""
        return self._passed.issuperset(("signature", "challenge"))

    @property
    def _passed(self) -> set[str]:
        return {finding.name for finding in self.findings if finding.state == "pass"}


def signed_devices(results: Sequence[DeviceResult]) -> frozenset[Digest]:
    """The devices that signed the challenge of the evidence that was appraised.

    Two offers that name one device offer it twice. Evidence that somebody copied from another offer counts for nothing,
    since its devices signed the other challenge.
    """
    return frozenset(result.device for result in results if result.device is not None and result.signed_challenge)


GPUS: Final[Mapping[str, tuple[str, ...]]] = {
    "GH100": ("H100", "H200", "H800", "H20", "GH200"),
    "GB100": ("B100", "B200", "GB200"),
}
"""Chips of GPUs, as certificates name them, and the accelerators with such a chip, as offers name them. Certificates do
not say which of these accelerators a chip is in."""


def chip_of(vendor: str, accelerator: str) -> str | None:
    """The chip of an accelerator that an offer names, such as `GH100` of NVIDIA `H100-SXM`; None if it is not known."""
    words = re.split(r"[^A-Z0-9]+", accelerator.upper())
    if vendor.upper() != "NVIDIA":
        return None
    return next((chip for chip, models in GPUS.items() if words[0] in models), None)


Appraise: TypeAlias = Callable[[HardwareEvidence, bytes, int], tuple[DeviceResult, ...]]
"""Appraises evidence of devices that had to sign these 32 bytes, at a time in POSIX seconds. Raises nothing."""


def not_appraised(evidence: HardwareEvidence, nonce: bytes, at: int) -> tuple[DeviceResult, ...]:
    """What is known of devices where nothing appraises their evidence: their kind, and that is a claim."""
    unknown = AppraisalRow("appraisal", "unknown", "nothing that is installed here appraises hardware evidence")
    return tuple(DeviceResult(device.kind, None, "", (), (unknown,)) for device in evidence.devices)
