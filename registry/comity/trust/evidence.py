"""What is verified: an artifact's files as they were found, and what is said about them. Plain frozen data.

The evidence pack beside the files has this shape on disk; reading it is not done here (`comity.verifier`).

    .comity/manifest.json  pieces.json
            claims.jsonl                                     one envelope a line: exactly the bytes that were logged
            proofs/<sha256 of line>.<sha256 of origin, 16 digits>.tlog-proof
            objects/<sha256>                                 side objects that the claims rely on

Trust never comes from the pack: nothing in it is believed before a pinned charter body proves it.
Source: protocol, section 10.


What may be active in a file: kinds that a policy can name. Each is a way in which loading a model runs somebody's
code, or hides from whoever looks whether it does.

An `Inspection` names what it found as `kind`, or as `kind: detail`. Source: protocol, section 8.


What did not verify and counts for nothing: said, so that nothing is passed over in silence.

Verdicts: rows of pass / fail / unknown / not-checked, and the one exit status that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from comity.trust.encoding import Digest, Json, sha256

PACK: Final = ".comity"
MODEL_SIG: Final = "model.sig"
MAX_CLAIMS: Final = 10_000
"""Lines that a client puts into a pack. A verifier bounds what it reads by bytes: junk lines must not hide others."""
MAX_READ: Final = 256 * 1024 * 1024
"""Bytes of claims, of proofs and of side objects, each."""
MAX_PACK_NAMES: Final = 1_000_000
"""Names in one folder of a pack."""
MAX_MODEL_SIG: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file is by its header and its name, and what in it a loader would run or could not read. Each text is for
    people, in the words of whoever looked (`comity.formats`)."""

    format: str
    active: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as it lies there. `kind` is `link` for a link out of the folder and `special` for devices and the like;
    neither is ever read, so their `sha256` is None. `inspection` is None where nobody looked inside."""

    path: str
    size: int
    sha256: Digest | None
    kind: Literal["file", "link", "special"] = "file"
    inspection: Inspection | None = None


@dataclass(frozen=True, slots=True)
class InclusionEvidence:
    """A tlog-proof, and the SHA-256 of the line that it is said to prove (its file's name; inclusion decides)."""

    line: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that `verify` looks at.

    `files` is None where nobody looked at the files (judging a claim alone), `pieces` where no piece index came along.
    `partial` says that the person who fetched this asked for some of the files only; it can make a missing file
    *partial*, never *pass*. `model_sig` holds the bytes of an OpenSSF signature at the artifact's root. `left_out` says
    what was found beside all this and could not be evidence of anything: it counts for nothing and is noted.
    """

    manifest: bytes | None
    files: tuple[FoundFile, ...] | None
    claims: tuple[bytes, ...] = ()
    proofs: tuple[InclusionEvidence, ...] = ()
    objects: Mapping[Digest, bytes] = field(default_factory=dict)
    partial: bool = False
    pieces: bytes | None = None
    model_sig: bytes | None = None
    left_out: tuple[str, ...] = ()


def proof_name(line: Digest, origin: str) -> str:
    """File name of a proof: of which line (its SHA-256), in which log."""
    return f"{line}.{sha256(origin.encode())[:16]}.tlog-proof"


KINDS: Final[Mapping[str, str]] = {
    "pickle": "loading it calls what it names",
    "torchscript": "a program that torch.jit.load prepares to run",
    "python": "source or bytecode that a loader may import",
    "remote-code": "a configuration that asks its reader to import code",
    "keras-lambda": "a Keras layer that holds code",
    "script": "a program for a shell or another interpreter",
    "executable": "native code",
    "chat-template": "a Jinja template that every conversation goes through",
    "template-escape": "a template that reaches for Python's internals",
    "archive": "an archive that was not looked through",
}
FORMATS: Final = frozenset(
    [
        "archive",
        "audio",
        "bytecode",
        "bzip2",
        "empty",
        "executable",
        "ggml",
        "gguf",
        "gzip",
        "hdf5",
        "image",
        "json",
        "keras",
        "npz",
        "numpy",
        "onnx",
        "pdf",
        "pickle",
        "pytorch",
        "safetensors",
        "script",
        "sentencepiece",
        "table",
        "text",
        "tflite",
        "torchscript",
        "unknown",
        "xz",
        "zip",
        "zlib",
    ]
)
"""What an inspection calls a file, by its bytes."""
DEFAULT_ALLOW: Final = ("chat-template",)
"""Nearly every chat model has a template, and runtimes render it in a sandbox: it is shown, and refused on request."""


def kind_of(active: str) -> str:
    """The kind of what an inspection found."""
    return active.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Remark:
    """`evidence` is the SHA-256 of the line or proof that it is about."""

    text: str
    evidence: Digest | None = None


State = Literal["pass", "fail", "unknown", "not-checked"]
Basis = Literal["verified here", "claimed", "stale or absent"]
Cause = Literal["", "false", "short", "missing", "partial"]

STATES: Final[tuple[State, ...]] = get_args(State)
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

SCHEMA: Final = "comity.dev/verdict/v1"
OK: Final = 0
VERIFICATION_FAILED: Final = 3
POLICY_NOT_MET: Final = 4
EVIDENCE_MISSING: Final = 5
PARTIAL: Final = 8


@dataclass(frozen=True, slots=True)
class RowFact:
    """One fact and what it rests on: verified here, claimed by `by`, or stale/absent. Never mixed."""

    text: str
    basis: Basis
    by: str = ""
    evidence: Digest | None = None

    def to_json(self) -> dict[str, Json]:
        return {"text": self.text, "basis": self.basis, "by": self.by, "evidence": self.evidence}


@dataclass(frozen=True, slots=True)
class Row:
    """One question and its answer.

    `cause` says why a row is not `pass`: `false` (what is here does not hold), `short` (it holds and is too little),
    `missing` (it is not here), `partial`. `step` is the numbered step of `verify` that decided.
    """

    name: str
    state: State
    summary: str
    step: int
    cause: Cause = ""
    facts: tuple[RowFact, ...] = ()
    hint: str = ""

    def joined(self, facts: tuple[RowFact, ...]) -> Row:
        """This row with more facts, which do not change its state."""
        return replace(self, facts=self.facts + facts) if facts else self

    def to_json(self) -> dict[str, Json]:
        return {
            "row": self.name,
            "state": self.state,
            "summary": self.summary,
            "step": self.step,
            "cause": self.cause,
            "facts": [fact.to_json() for fact in self.facts],
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rows in their fixed order, and what they amount to under the policy.

    `inputs` are the SHA-256 of the claim lines that facts of the rows rest on.
    """

    artifact: Digest | None
    name: str
    rows: tuple[Row, ...]
    exit_status: int
    policy: Digest | None = None
    required: tuple[str, ...] = field(default=())
    inputs: tuple[Digest, ...] = field(default=())

    @property
    def accepted(self) -> bool:
        return self.exit_status == OK

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_json(self) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "artifact": self.artifact,
            "name": self.name,
            "exit_status": self.exit_status,
            "accepted": self.accepted,
            "policy": self.policy,
            "required": list(self.required),
            "inputs": list(self.inputs),
            "rows": [row.to_json() for row in self.rows],
        }


def exit_status(rows: tuple[Row, ...], required: tuple[str, ...]) -> int:
    """The exit status, in the order of precedence of protocol section 10.

    3  a file differs from the manifest, or a required row has nothing but material that fails
    4  authentic, policy not met
    5  evidence missing or unreachable
    8  partial
    0  every required row passes; `artifact` is always required, for all else is about it
    """
    judged = {row.name: row for row in rows}
    broken = any(row.state == "fail" for row in rows if row.name in ("artifact", "bytes"))
    needed = [judged.get(name) for name in ("artifact", *required)]
    causes = {row.cause if row else "" for row in needed if row is None or row.state != "pass"}
    if broken or "false" in causes:
        return VERIFICATION_FAILED
    if "short" in causes:
        return POLICY_NOT_MET
    if causes - {"partial"}:  # missing, or not checked at all
        return EVIDENCE_MISSING
    if any(row.cause == "partial" for row in rows):
        return PARTIAL
    return OK
