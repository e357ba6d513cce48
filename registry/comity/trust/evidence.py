"""The input and the result of `verify`, as frozen data: evidence, file inspections, remarks, rows and the verdict.

The evidence pack beside the files has this shape on disk; `comity.verifier` reads it:

    .comity/manifest.json  pieces.json
            statements.jsonl                                 one envelope per line: exactly the bytes that were logged
            proofs/<sha256 of line>.<sha256 of origin, 16 digits>.tlog-proof
            objects/<sha256>                                 side objects that the claims rely on
            chains/<sha256 of a file>                        chained records: only hints for hashing on all cores
            unread.json                                      if a bound left statements out of the answers: of whom

Older packs call the file `claims.jsonl`; both names are read. OpenSSF proposes that name for a list of Sigstore
bundles: these are no statements of Comity, and a reader of statements passes over them.

The pack is untrusted: its content counts only after a pinned charter body proves it. An inspection names active content
as `kind` or `kind: detail`. A verdict has rows (pass, fail, unknown, not-checked) and one exit status.
Source: protocol, sections 8 and 10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from comity.trust.encoding import Digest, Fields, Json, canonical, parse_canonical, printable, sha256
from comity.trust.errors import Malformed
from comity.trust.exit_statuses import EVIDENCE_MISSING, OK, PARTIAL, POLICY_NOT_MET, VERIFICATION_FAILED
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, parse_entry
from comity.trust.tlog.note import NoteSignature, SignedNote
from comity.trust.tlog.proof import TlogProof

PACK: Final = ".comity"
STATEMENTS: Final = "statements.jsonl"
UNREAD: Final = "unread.json"
MAX_UNREAD: Final = 256
"""Subjects and authors (each) of whom a pack says that more was said than was read."""
MAX_UNREAD_BYTES: Final = 512 * 1024
OLD_STATEMENTS: Final = "claims.jsonl"
"""The same lines in a pack of an older version. OpenSSF proposes this name for another format."""
MODEL_SIG: Final = "model.sig"
MAX_CLAIMS: Final = 10_000
"""Maximum lines that a client writes into a pack. A verifier limits bytes instead, so junk lines cannot hide others."""
MAX_READ: Final = 256 * 1024 * 1024
"""Maximum bytes of claims, of proofs, and of side objects (each)."""
MAX_PACK_NAMES: Final = 1_000_000
"""Maximum number of names in one folder of a pack."""
MAX_MODEL_SIG: Final = 64 * 1024 * 1024
MAX_REMEMBERED: Final = 64 * 1024 * 1024
"""Bytes of memory of what a session remembers of lines, proofs and notes, all together."""


@frozen
class Inspection:
    """The format of a file by its header and name, its active content (what a loader would run), and its malformed
    parts. The texts are for people; `comity.formats` writes them."""

    format: str
    active: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


@frozen
class FoundFile:
    """A file that was found on disk. `kind` is `link` for a link out of the folder and `special` for devices and the
    like; these are never read, so their `sha256` is None. `inspection` is None if the content was not inspected."""

    path: str
    size: int
    sha256: Digest | None
    kind: Literal["file", "link", "special"] = "file"
    inspection: Inspection | None = None


@frozen
class InclusionEvidence:
    """A tlog-proof, and the SHA-256 of the line that it claims to prove (from the file name; inclusion is checked)."""

    line: Digest
    data: bytes


@frozen
class UnreadStatements:
    """What was said and not read, because a bound was reached, in words, and by whom (`cut`). A pack keeps it, so that
    what was unknown when it was made is not found to be complete later.

        {"cut":["51aa…"],"schema":"comity/unread/v1","unread":["more was said about the artifact 9f2c… than was read"]}
    """

    texts: tuple[str, ...] = ()
    cut: frozenset[Digest] = frozenset()

    def encode(self) -> bytes:
        """At most `MAX_UNREAD` of each."""
        return canonical(
            {
                "schema": "comity/unread/v1",
                "unread": [text[:MAX_UNREAD] for text in self.texts[:MAX_UNREAD]],
                "cut": sorted(self.cut)[:MAX_UNREAD],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> UnreadStatements:
        """Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_UNREAD_BYTES, what=UNREAD), UNREAD)
        fields.constant("schema", "comity/unread/v1")
        texts, cut = fields.items("unread", most=MAX_UNREAD), fields.digests("cut", most=MAX_UNREAD)
        fields.done()
        return cls(tuple(printable(str(text)[:MAX_UNREAD]) for text in texts), frozenset(cut))


@frozen
class Evidence:
    """The input of `verify`.

    `files` is None if the files were not read (only claims are judged), `pieces` if there is no piece index. `partial`
    is set if only some of the files were requested; a missing file is then *partial*, never *pass*. `model_sig` holds
    the bytes of an OpenSSF signature at the artifact's root. `left_out` describes items that were found but cannot be
    evidence; they do not count and become notes. `unread` describes what was said and not read, because a bound was
    reached, and by whom (`cut`): it is unknown.
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
    unread: tuple[str, ...] = ()
    cut: frozenset[Digest] = frozenset()


Parsed = TypeVar("Parsed")


class EvidenceReader:
    """Parses each line, tlog-proof, checkpoint note and its signatures of one session once, and returns the same object
    again. Of the statements about artifacts, the reading of those that were read last is kept (`read_claims`).

    These objects keep the answers of their signature and inclusion checks, so what one step of a session proved costs
    the next step nothing. An answer depends on the bytes alone; no policy, charter or time is part of it. What was used
    last is remembered, in at most `limit` bytes of memory: a half for lines, a quarter for signatures, an eighth for
    proofs and for notes. What is malformed is not. The statements that were read last may take as much again. Threads
    may share a reader.
    """

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._entries: _Remembered[Entry] = _Remembered(limit // 2, entry_weight)
        self._proofs: _Remembered[TlogProof] = _Remembered(limit // 8, lambda data: 2 * len(data) + 2048)
        self._notes: _Remembered[SignedNote] = _Remembered(limit // 8, lambda data: 2 * len(data) + 1024)
        self._signatures: _Remembered[NoteSignature] = _Remembered(limit // 4, lambda data: 2 * len(data) + 512)
        self._limit = limit
        self._last: tuple[frozenset[bytes], Digest, Any] | None = None

    def entry(self, line: bytes) -> Entry:
        """Raises Malformed as `parse_entry` does."""
        return self._entries.get(line) or self._entries.put(line, parse_entry(line))

    def known(self, entry: Entry) -> Entry:
        """Remember an entry that was parsed elsewhere; return the one of this line that is remembered."""
        return self._entries.get(entry.line) or self._entries.put(entry.line, entry)

    def readable(self, line: bytes) -> Entry | None:
        """Return the entry; None if the line is not a statement."""
        try:
            return self.entry(line)
        except Malformed:
            return None

    def proof(self, data: bytes) -> TlogProof:
        """Raises Malformed as `TlogProof.parse` does."""
        return self._proofs.get(data) or self._proofs.put(data, TlogProof.parse(data, self.note))

    def note(self, data: bytes) -> SignedNote:
        """Raises Malformed as `SignedNote.parse` does."""
        return self._notes.get(data) or self._notes.put(data, SignedNote.parse(data, parse_signature=self._signature))

    def last(self, lines: frozenset[bytes], artifact: Digest, read: Callable[[], Parsed]) -> Parsed:
        """Return what `read` makes of these lines about `artifact`, without calling it if they were read last."""
        if self._last is not None and self._last[:2] == (lines, artifact):
            known: Parsed = self._last[2]
            return known
        found = read()
        if sum(map(entry_weight, lines)) <= self._limit:
            self._last = lines, artifact, found
        return found

    def _signature(self, line: str) -> NoteSignature:
        """Notes of one checkpoint differ in the cosignatures that a node had received, and share the others."""
        data = line.encode()
        return self._signatures.get(data) or self._signatures.put(data, NoteSignature.parse(line))


def entry_weight(line: bytes) -> int:
    """Bytes of memory of a line and its entry, at most: payload and signatures are in both. As measured, a line of 650
    bytes takes 2,650 and one of 20,800 bytes 45,300."""
    return len(line) * 9 // 4 + 2048


class _Remembered(Generic[Parsed]):
    """What was parsed, by its bytes, in two halves of `limit` bytes of memory: when the recent half is full, it becomes
    the older one, which is forgotten. `weigh` returns the bytes of memory of the value of some bytes, with these.
    Threads may share it: each change is one operation of a dict, and a race parses twice."""

    def __init__(self, limit: int, weigh: Callable[[bytes], int]) -> None:
        self._half, self._size, self._weigh = limit // 2, 0, weigh
        self._recent: dict[bytes, Parsed] = {}
        self._older: dict[bytes, Parsed] = {}

    def get(self, data: bytes) -> Parsed | None:
        found = self._recent.get(data)
        if found is None and (found := self._older.get(data)) is not None:
            self.put(data, found)
        return found

    def put(self, data: bytes, parsed: Parsed) -> Parsed:
        weight = self._weigh(data)
        if weight > self._half:
            return parsed
        if (known := self._recent.get(data)) is not None:
            return known  # another thread parsed the same bytes at the same time
        if self._size + weight > self._half:
            self._older, self._recent, self._size = self._recent, {}, 0
        self._recent[data] = parsed
        self._size += weight
        return parsed


def proof_name(line: Digest, origin: str) -> str:
    """Return the file name of the proof for a line (its SHA-256) in the log `origin`."""
    return f"{line}.{sha256(origin.encode())[:16]}.tlog-proof"


KINDS: Final[Mapping[str, str]] = {
    "pickle": "loading it calls the functions that it names",
    "torchscript": "a program that torch.jit.load prepares to run",
    "python": "source or bytecode that a loader may import",
    "remote-code": "a configuration that makes the loader import code",
    "keras-lambda": "a Keras layer that contains code, or a class of another package",
    "custom-operator": "an operator that is not one of the runtime's own",
    "tensorflow": "a graph whose operators can read and write files",
    "serialized": "loading it creates objects of any class",
    "script": "a program for a shell or another interpreter",
    "executable": "native code",
    "chat-template": "a Jinja template that formats every conversation",
    "template-escape": "a template that accesses Python internals",
    "archive": "an archive whose content was not inspected",
    "not-inspected": "a limit was reached, or a part that is not read: nobody knows what it does",
    "unknown": "no format that is known here: nobody knows what a loader makes of it",
}
"""Kinds of active content that a policy can name. Each one can run code when a model is loaded, or hide such code."""
FORMATS: Final = frozenset(
    [
        "archive",
        "audio",
        "bytecode",
        "bzip2",
        "coreml",
        "empty",
        "executable",
        "fasttext",
        "font",
        "ggml",
        "gguf",
        "gzip",
        "hdf5",
        "image",
        "json",
        "keras",
        "lzma",
        "msgpack",
        "npz",
        "numpy",
        "onnx",
        "pdf",
        "pickle",
        "pytorch",
        "raw",
        "safetensors",
        "script",
        "sentencepiece",
        "serialized",
        "table",
        "tar",
        "tensorflow",
        "text",
        "tflite",
        "torchscript",
        "unknown",
        "xz",
        "zip",
        "zlib",
    ]
)
"""File formats that an inspection reports."""
DEFAULT_ALLOW: Final = ("chat-template",)
"""Allowed by default: nearly every chat model has a template, and runtimes render it in a sandbox. It is reported."""


def kind_of(active: str) -> str:
    """Return the kind of an active content text (`kind` or `kind: detail`)."""
    return active.partition(":")[0]


@frozen
class Remark:
    """A note on material that did not verify and does not count. `evidence` is the SHA-256 of the line or proof."""

    text: str
    evidence: Digest | None = None


State = Literal["pass", "fail", "unknown", "not-checked"]
Basis = Literal["verified here", "claimed", "stale or absent"]
Cause = Literal["", "false", "short", "missing", "partial"]

STATES: Final[tuple[State, ...]] = get_args(State)
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

SCHEMA: Final = "comity.dev/verdict/v1"


@frozen
class RowFact:
    """One fact and its basis: verified here, claimed by `by`, or stale/absent."""

    text: str
    basis: Basis
    by: str = ""
    evidence: Digest | None = None

    def to_json(self) -> dict[str, Json]:
        return {"text": self.text, "basis": self.basis, "by": self.by, "evidence": self.evidence}


@frozen
class Row:
    """One check of a verdict and its result.

    `cause` is the reason why a row is not `pass`: `false` (the evidence does not verify), `short` (it verifies, but the
    policy requires more), `missing` (there is no evidence), `partial`. `step` is the numbered step of `verify`.
    """

    name: str
    state: State
    summary: str
    step: int
    cause: Cause = ""
    facts: tuple[RowFact, ...] = ()
    hint: str = ""

    def with_facts(self, facts: tuple[RowFact, ...]) -> Row:
        """Return this row with more facts; the state does not change."""
        return replace(self, facts=self.facts + facts)

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


@frozen
class Verdict:
    """The rows in their fixed order, and the exit status under the policy.

    `inputs` are the SHA-256 of the claim lines to which facts of the rows refer.
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
    """Return the exit status, in the order of precedence of docs/verifying.md.

    3  a file differs from the manifest, or a required row has only evidence that does not verify
    4  authentic, policy not met
    5  evidence missing or unreachable
    8  partial
    0  every required row passes; `artifact` is always required, because all other rows are about it
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
