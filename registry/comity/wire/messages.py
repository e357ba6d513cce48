"""The messages of the protocol as frozen values, and their conversion from and to protobuf messages.

Digests are 64 hex digits, times Unix seconds, sizes bytes, indexes counted from 0. Each message has a pair of functions
(`encode_*`, `decode_*`) that are inverse to each other. Decoding raises Malformed for a value above `limits`. Lines,
notes and proofs are unverified bytes.

`GatewayUrl` is the URL of a gateway. It comes from unknown nodes and goes into command lines and configuration files,
so it may contain only letters, digits and `:/.-_~[]`, none of which ends a word, a quotation or a line, and it cannot
contain a secret. Quote it nevertheless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import artifact_pb2, blob_pb2, charter_pb2, log_pb2, node_pb2, publish_pb2, types_pb2
from comity.wire import limits
from comity.wire.limits import (
    GATEWAY_URL,
    encode_digest,
    read_data,
    read_digest,
    read_integer,
    read_line,
    read_many,
    read_origin,
    read_text,
)
from comity.wire.tls import Address

_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/]+)((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*)\Z")


@dataclass(frozen=True, slots=True)
class GatewayUrl:
    """The URL of a gateway. Create it with `parse` only; `str` returns the parsed text."""

    text: str
    scheme: str
    address: Address

    @classmethod
    def parse(cls, text: str) -> GatewayUrl:
        """`https://models.example.org`, `http://192.0.2.1:7480/hub`: no user, query, fragment or closing slash. Raises
        Malformed (GATEWAY-URL)."""
        found = _URL.match(text) if len(text) <= GATEWAY_URL else None
        if found is None:
            raise _refused()
        scheme, place, _ = found.groups()
        bare = ":" not in place.rpartition("]")[2]
        try:
            address = Address.parse(f"{place}:{_PORTS[scheme]}" if bare else place)
        except Malformed as error:
            raise _refused() from error
        return cls(text, scheme, address)

    def __str__(self) -> str:
        return self.text


def _refused() -> Malformed:
    """The error for an invalid URL. It does not contain the URL, which may contain a password."""
    why = f"allowed: at most {GATEWAY_URL} characters; letters, digits and ._~- in the path; no user, no query"
    return Malformed("not the URL of a gateway", why=why, hint="https://HOST[:PORT][/PATH]", code="GATEWAY-URL")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Facts that a node reports about itself. `identity` has its member's inception and rotations, in order; `gateway`
    is its URL for HTTP clients."""

    software: str
    origin: str
    node_record: bytes | None = None
    identity: tuple[bytes, ...] = ()
    addresses: bytes | None = None
    capabilities: tuple[str, ...] = ()
    gateway: GatewayUrl | None = None


@dataclass(frozen=True, slots=True)
class Charter:
    """The charter of one epoch: the body as it was hashed, and the lines that certify it."""

    epoch: int
    body: bytes
    certificate: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AskReceipt:
    """The receipt of a request to join. `since` is the time of its first request; `waiting` counts all requests."""

    member: Digest
    since: int
    waiting: int


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A waiting request to join, with the lines of its card: inception, rotations, node-records, addresses."""

    member: Digest
    since: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogHead:
    """A log and its newest note with all known cosignatures; `note` is empty before the first checkpoint."""

    origin: str
    vkey: str
    note: bytes


@dataclass(frozen=True, slots=True)
class EntryBatch:
    start: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LocatedEntry:
    """One entry of one log."""

    origin: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class LocatedProof:
    """A C2SP tlog-proof and the origin of its log."""

    origin: str
    proof: bytes


@dataclass(frozen=True, slots=True)
class ShownMisbehaviour:
    """A proof of misbehaviour of a log: `parts` are contradictory signed notes, lines and proofs."""

    kind: str
    origin: str
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of results; `next_cursor` is empty on the last page."""

    found: tuple[LocatedEntry, ...]
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Whether a node has a blob, complete and verified by the node; `size` is 0 if it does not."""

    digest: Digest
    have: bool
    size: int


@dataclass(frozen=True, slots=True)
class BlobLocation:
    """Another location of a blob, unverified. The URL is a bearer secret until it expires: never log it."""

    kind: str
    url: str

    def __repr__(self) -> str:
        return f"<BlobLocation {self.kind}>"


@dataclass(frozen=True, slots=True)
class InlineObject:
    """A small side object, sent together with the lines that name it."""

    digest: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class MissingObject:
    """An object that a submission needs; `received` is the offset to continue at."""

    digest: Digest
    size: int
    received: int


@dataclass(frozen=True, slots=True)
class SubmitReceipt:
    """The index of a line in a log. Unverified until a checkpoint proves it."""

    origin: str
    index: int
    line_digest: Digest


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submission: receipts for all lines, or the objects to upload first."""

    submission: Digest
    missing: tuple[MissingObject, ...] = ()
    receipts: tuple[SubmitReceipt, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadHeader:
    """The header of an upload: its chunks are bytes of `digest` from `offset`, for one submission."""

    submission: Digest
    digest: Digest
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The state of a peer. `lag` counts entries that this node has not copied yet; `last_seen` is 0 for never."""

    name: str
    jurisdiction: str
    address: str
    reachable: bool
    last_seen: int
    lag: int
    last_error: str


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The state of a log. `frozen`: it showed two histories; `full`: it reached a limit of the node."""

    origin: str
    size: int
    own: bool
    checkpoint_time: int
    cosigners: tuple[str, ...]
    frozen: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The state of the blob store. `free_bytes` is None if the store does not know."""

    blobs: int
    bytes: int
    free_bytes: int | None
    quarantined: int


@dataclass(frozen=True, slots=True)
class Quota:
    name: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class ServedStatus:
    """Bytes of one blob that the node sent to one caller since its start."""

    caller: str
    blob: Digest
    bytes: int


@dataclass(frozen=True, slots=True)
class DraftStatus:
    """The state of a draft in its newest round with votes; `by` is empty if no member proposed it."""

    body: Digest
    by: str
    text: str
    intents: int
    ratified: int
    quorum: int
    missing: tuple[str, ...] = ()
    objection: str = ""


@dataclass(frozen=True, slots=True)
class DutyStatus:
    """The next action that a member must take; `own` is true for the node's own member."""

    member: str
    action: str
    body: Digest
    round: int
    why: str
    own: bool


@dataclass(frozen=True, slots=True)
class ForkStatus:
    """Two certified bodies of one epoch; `first` is followed. A `retired` rival has no effect."""

    epoch: int
    first: Digest
    second: Digest
    retired: bool


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """The last epoch that a member's nodes adopted, or None, and when the member's newest head was last cosigned (0 for
    never)."""

    name: str
    epoch: int | None
    heard: int


@dataclass(frozen=True, slots=True)
class GovernanceStatus:
    """The charter state of a node. `crowded` are logs above their quota of statements about the next epoch."""

    federation: Digest
    epoch: int
    body: Digest
    stopped: bool
    round: int
    drafts: tuple[DraftStatus, ...] = ()
    duties: tuple[DutyStatus, ...] = ()
    forks: tuple[ForkStatus, ...] = ()
    liars: tuple[str, ...] = ()
    asks: int = 0
    members: tuple[MemberStatus, ...] = ()
    crowded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The status of a node, for its operators. `misbehaviour` counts stored proofs."""

    software: str
    origin: str
    started: int
    peers: tuple[PeerStatus, ...]
    logs: tuple[LogStatus, ...]
    store: StoreStatus
    holds: int
    misbehaviour: int
    quotas: tuple[Quota, ...]
    warnings: tuple[str, ...]
    served: tuple[ServedStatus, ...] = ()
    governance: GovernanceStatus | None = None


GO_AHEAD: Final = ("comity-go-ahead", "1")
"""The initial metadata that asks the client for the chunks of an upload."""


def encode_node(facts: NodeFacts) -> node_pb2.GetNodeResponse:
    return node_pb2.GetNodeResponse(
        software=facts.software,
        origin=facts.origin,
        node_record=facts.node_record or b"",
        identity=facts.identity,
        addresses=facts.addresses,
        capabilities=facts.capabilities,
        gateway=None if facts.gateway is None else str(facts.gateway),
    )


def decode_node(message: node_pb2.GetNodeResponse) -> NodeFacts:
    return NodeFacts(
        software=read_text(message.software, "software name", limits.NAME),
        origin=read_origin(message.origin),
        node_record=read_line(message.node_record) if message.node_record else None,
        identity=read_many(message.identity, "identity lines", limits.IDENTITY_LINES, read_line),
        addresses=read_line(message.addresses) if message.HasField("addresses") else None,
        capabilities=read_many(
            message.capabilities,
            "capabilities",
            limits.CAPABILITIES,
            lambda name: read_text(name, "capability", limits.LABEL),
        ),
        gateway=GatewayUrl.parse(message.gateway) if message.HasField("gateway") else None,
    )


def encode_charter(part: Charter) -> node_pb2.GetCharterResponse:
    return node_pb2.GetCharterResponse(epoch=part.epoch, body=part.body, certificate=part.certificate)


def decode_charter(message: node_pb2.GetCharterResponse) -> Charter:
    """Decode one part of a charter, with parts of its body and certificate."""
    return Charter(
        epoch=read_integer(message.epoch, "epoch"),
        body=read_data(message.body, "charter body", limits.CHARTER_BODY),
        certificate=read_many(message.certificate, "lines", limits.CERTIFICATE_LINES, read_line),
    )


def join_charter(epoch: int, parts: Iterable[Charter]) -> Charter:
    """Join the parts of a charter, in order. Raises Malformed above a limit."""
    pieces = list(parts)
    body = b"".join(part.body for part in pieces)
    certificate = tuple(line for part in pieces for line in part.certificate)
    if len(body) > limits.CHARTER_BODY or len(certificate) > limits.CERTIFICATE_LINES:
        why = f"at most {limits.CHARTER_BODY} bytes of body and {limits.CERTIFICATE_LINES} lines"
        raise Malformed("charter too large", why=why)
    return Charter(epoch, body, certificate)


def card_lines(lines: Sequence[bytes]) -> tuple[bytes, ...]:
    """Check the number and size of the lines of a request to join. Raises Malformed."""
    card = read_many(lines, "lines of a card", limits.ASK_LINES, read_line)
    if not card or sum(map(len, card)) > limits.ASK_BYTES:
        raise Malformed("not a card", why=f"1 to {limits.ASK_LINES} lines, {limits.ASK_BYTES} bytes together")
    return card


def encode_ask_receipt(receipt: AskReceipt) -> charter_pb2.AskResponse:
    return charter_pb2.AskResponse(member=encode_digest(receipt.member), since=receipt.since, waiting=receipt.waiting)


def decode_ask_receipt(message: charter_pb2.AskResponse) -> AskReceipt:
    return AskReceipt(
        read_digest(message.member),
        read_integer(message.since, "time"),
        read_integer(message.waiting, "requests that wait"),
    )


def encode_join_request(ask: JoinRequest) -> charter_pb2.JoinRequest:
    return charter_pb2.JoinRequest(member=encode_digest(ask.member), since=ask.since, lines=ask.lines)


def decode_join_request(message: charter_pb2.JoinRequest) -> JoinRequest:
    return JoinRequest(read_digest(message.member), read_integer(message.since, "time"), card_lines(message.lines))


def encode_head(head: LogHead) -> types_pb2.LogHead:
    return types_pb2.LogHead(origin=head.origin, vkey=head.vkey, note=head.note)


def decode_head(message: types_pb2.LogHead) -> LogHead:
    return LogHead(
        origin=read_origin(message.origin),
        vkey=read_text(message.vkey, "verifier key", limits.PATH),
        note=read_data(message.note, "note", limits.NOTE),
    )


def encode_located(located: LocatedEntry) -> types_pb2.Located:
    return types_pb2.Located(origin=located.origin, index=located.index, line=located.line)


def decode_located(message: types_pb2.Located) -> LocatedEntry:
    return LocatedEntry(read_origin(message.origin), read_integer(message.index, "index"), read_line(message.line))


def encode_batch(batch: EntryBatch) -> log_pb2.EntryBatch:
    return log_pb2.EntryBatch(start=batch.start, lines=batch.lines)


def decode_batch(message: log_pb2.EntryBatch) -> EntryBatch:
    """Also raises Malformed for an empty batch, which would make no progress."""
    if not message.lines:
        raise Malformed("empty batch", why="a batch has at least one line")
    lines = read_many(message.lines, "lines", limits.BATCH_LINES, read_line)
    return EntryBatch(read_integer(message.start, "index"), lines)


def encode_proof(proof: LocatedProof) -> log_pb2.LocatedProof:
    return log_pb2.LocatedProof(origin=proof.origin, proof=proof.proof)


def decode_proof(message: log_pb2.LocatedProof) -> LocatedProof:
    return LocatedProof(read_origin(message.origin), read_data(message.proof, "proof", limits.PROOF))


def encode_misbehaviour(misbehaviour: ShownMisbehaviour) -> log_pb2.Misbehaviour:
    return log_pb2.Misbehaviour(kind=misbehaviour.kind, origin=misbehaviour.origin, parts=misbehaviour.parts)


def decode_misbehaviour(message: log_pb2.Misbehaviour) -> ShownMisbehaviour:
    return ShownMisbehaviour(
        kind=read_text(message.kind, "kind of misbehaviour", limits.LABEL),
        origin=read_origin(message.origin),
        parts=read_many(
            message.parts,
            "parts of a proof",
            limits.MISBEHAVIOUR_PARTS,
            lambda part: read_data(part, "part of a proof", limits.PROOF),
        ),
    )


def encode_page(page: SearchPage) -> artifact_pb2.SearchResponse:
    return artifact_pb2.SearchResponse(found=map(encode_located, page.found), next_cursor=page.next_cursor)


def decode_page(message: artifact_pb2.SearchResponse) -> SearchPage:
    return SearchPage(
        found=read_many(message.found, "results", limits.SEARCH_PAGE, decode_located),
        next_cursor=read_text(message.next_cursor, "cursor", limits.TOKEN),
    )


def encode_stat(stat: BlobStat) -> blob_pb2.BlobStat:
    return blob_pb2.BlobStat(digest=encode_digest(stat.digest), have=stat.have, size=stat.size)


def decode_stat(message: blob_pb2.BlobStat) -> BlobStat:
    return BlobStat(read_digest(message.digest), message.have, read_integer(message.size, "size"))


def encode_location(location: BlobLocation) -> blob_pb2.Location:
    return blob_pb2.Location(kind=location.kind, url=location.url)


def decode_location(message: blob_pb2.Location) -> BlobLocation:
    return BlobLocation(
        kind=read_text(message.kind, "kind of location", limits.LABEL),
        url=read_text(message.url, "location", limits.PATH),
    )


def encode_inline(inline: InlineObject) -> publish_pb2.InlineObject:
    return publish_pb2.InlineObject(digest=encode_digest(inline.digest), data=inline.data)


def decode_inline(message: publish_pb2.InlineObject) -> InlineObject:
    return InlineObject(read_digest(message.digest), read_data(message.data, "object", limits.SUBMIT_BYTES))


def encode_submitted(submitted: Submitted) -> publish_pb2.SubmitResponse:
    return publish_pb2.SubmitResponse(
        submission=encode_digest(submitted.submission),
        missing=map(_encode_missing, submitted.missing),
        receipts=map(_encode_receipt, submitted.receipts),
    )


def decode_submitted(message: publish_pb2.SubmitResponse) -> Submitted:
    """Raises Malformed unless the answer has either missing objects or receipts."""
    if bool(message.missing) == bool(message.receipts):
        raise Malformed("not an answer to a submission", why="expected either missing objects or receipts")
    return Submitted(
        submission=read_digest(message.submission),
        missing=read_many(message.missing, "missing objects", limits.MISSING, _decode_missing),
        receipts=read_many(message.receipts, "receipts", limits.SUBMIT_LINES, _decode_receipt),
    )


def _encode_missing(missing: MissingObject) -> publish_pb2.MissingObject:
    named = types_pb2.ObjectSize(digest=encode_digest(missing.digest), size=missing.size)
    return publish_pb2.MissingObject(object=named, received=missing.received)


def _decode_missing(message: publish_pb2.MissingObject) -> MissingObject:
    size = read_integer(message.object.size, "size")
    return MissingObject(
        digest=read_digest(message.object.digest),
        size=size,
        received=read_integer(message.received, "received bytes", most=size),
    )


def _encode_receipt(receipt: SubmitReceipt) -> publish_pb2.Receipt:
    return publish_pb2.Receipt(
        origin=receipt.origin, index=receipt.index, line_digest=encode_digest(receipt.line_digest)
    )


def _decode_receipt(message: publish_pb2.Receipt) -> SubmitReceipt:
    return SubmitReceipt(
        origin=read_origin(message.origin),
        index=read_integer(message.index, "index"),
        line_digest=read_digest(message.line_digest),
    )


def encode_upload_header(header: UploadHeader) -> publish_pb2.UploadHeader:
    return publish_pb2.UploadHeader(
        submission=encode_digest(header.submission),
        object=types_pb2.ObjectSize(digest=encode_digest(header.digest), size=header.size),
        offset=header.offset,
    )


def decode_upload_header(message: publish_pb2.UploadHeader) -> UploadHeader:
    size = read_integer(message.object.size, "size")
    return UploadHeader(
        submission=read_digest(message.submission),
        digest=read_digest(message.object.digest),
        size=size,
        offset=read_integer(message.offset, "offset", most=size),
    )
