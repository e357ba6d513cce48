"""Protobuf messages <-> values: one pair of functions a message, each the inverse of the other.

Decoding refuses, with Malformed, whatever a value may not hold. Whether a line, a note or a proof means anything is not
checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from comity.trust.errors import Malformed
from comity.v1 import artifact_pb2, blob_pb2, charter_pb2, log_pb2, node_pb2, publish_pb2, types_pb2
from comity.wire import checks, limits
from comity.wire.checks import digest_bytes
from comity.wire.gateway_url import GatewayUrl
from comity.wire.values import (
    AskReceipt,
    BlobStat,
    Charter,
    EntryBatch,
    InlineObject,
    JoinRequest,
    Located,
    LocatedProof,
    Location,
    LogHead,
    Misbehaviour,
    MissingObject,
    NodeFacts,
    Receipt,
    SearchPage,
    Submitted,
    UploadHeader,
)

GO_AHEAD: Final = ("comity-go-ahead", "1")
"""The initial metadata with which a node asks for the chunks of an upload."""


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
        software=checks.text(message.software, "software name", limits.NAME),
        origin=checks.origin(message.origin),
        node_record=checks.line(message.node_record) if message.node_record else None,
        identity=checks.many(message.identity, "identity lines", limits.IDENTITY_LINES, checks.line),
        addresses=checks.line(message.addresses) if message.HasField("addresses") else None,
        capabilities=checks.many(
            message.capabilities,
            "capabilities",
            limits.CAPABILITIES,
            lambda word: checks.text(word, "capability", limits.WORD),
        ),
        gateway=GatewayUrl.parse(message.gateway) if message.HasField("gateway") else None,
    )


def encode_charter(part: Charter) -> node_pb2.GetCharterResponse:
    return node_pb2.GetCharterResponse(epoch=part.epoch, body=part.body, certificate=part.certificate)


def decode_charter(message: node_pb2.GetCharterResponse) -> Charter:
    """One part of a charter: pieces of its body and certificate."""
    return Charter(
        epoch=checks.integer(message.epoch, "epoch"),
        body=checks.data(message.body, "charter body", limits.CHARTER_BODY),
        certificate=checks.many(message.certificate, "lines", limits.CERTIFICATE_LINES, checks.line),
    )


def join_charter(epoch: int, parts: Iterable[Charter]) -> Charter:
    """A charter out of its parts, in order."""
    pieces = list(parts)
    body = b"".join(part.body for part in pieces)
    certificate = tuple(line for part in pieces for line in part.certificate)
    if len(body) > limits.CHARTER_BODY or len(certificate) > limits.CERTIFICATE_LINES:
        raise Malformed("charter too large", why=f"at most {limits.CHARTER_BODY} bytes of body are read")
    return Charter(epoch, body, certificate)


def card_lines(lines: Sequence[bytes]) -> tuple[bytes, ...]:
    """The lines of a request to join, few and small enough."""
    card = checks.many(lines, "lines of a card", limits.ASK_LINES, checks.line)
    if not card or sum(map(len, card)) > limits.ASK_BYTES:
        raise Malformed("not a card", why=f"1 to {limits.ASK_LINES} lines, {limits.ASK_BYTES} bytes together")
    return card


def encode_ask_receipt(receipt: AskReceipt) -> charter_pb2.AskResponse:
    return charter_pb2.AskResponse(member=digest_bytes(receipt.member), since=receipt.since, waiting=receipt.waiting)


def decode_ask_receipt(message: charter_pb2.AskResponse) -> AskReceipt:
    return AskReceipt(
        checks.digest(message.member),
        checks.integer(message.since, "time"),
        checks.integer(message.waiting, "requests that wait"),
    )


def encode_join_request(ask: JoinRequest) -> charter_pb2.JoinRequest:
    return charter_pb2.JoinRequest(member=digest_bytes(ask.member), since=ask.since, lines=ask.lines)


def decode_join_request(message: charter_pb2.JoinRequest) -> JoinRequest:
    return JoinRequest(checks.digest(message.member), checks.integer(message.since, "time"), card_lines(message.lines))


def encode_head(head: LogHead) -> types_pb2.LogHead:
    return types_pb2.LogHead(origin=head.origin, vkey=head.vkey, note=head.note)


def decode_head(message: types_pb2.LogHead) -> LogHead:
    return LogHead(
        origin=checks.origin(message.origin),
        vkey=checks.text(message.vkey, "verifier key", limits.PATH),
        note=checks.data(message.note, "note", limits.NOTE),
    )


def encode_located(located: Located) -> types_pb2.Located:
    return types_pb2.Located(origin=located.origin, index=located.index, line=located.line)


def decode_located(message: types_pb2.Located) -> Located:
    return Located(checks.origin(message.origin), checks.integer(message.index, "index"), checks.line(message.line))


def encode_batch(batch: EntryBatch) -> log_pb2.EntryBatch:
    return log_pb2.EntryBatch(start=batch.start, lines=batch.lines)


def decode_batch(message: log_pb2.EntryBatch) -> EntryBatch:
    """Refuses an empty batch as well: it would move nothing on."""
    if not message.lines:
        raise Malformed("empty batch", why="a batch holds at least one line")
    lines = checks.many(message.lines, "lines", limits.BATCH_LINES, checks.line)
    return EntryBatch(checks.integer(message.start, "index"), lines)


def encode_proof(proof: LocatedProof) -> log_pb2.LocatedProof:
    return log_pb2.LocatedProof(origin=proof.origin, proof=proof.proof)


def decode_proof(message: log_pb2.LocatedProof) -> LocatedProof:
    return LocatedProof(checks.origin(message.origin), checks.data(message.proof, "proof", limits.PROOF))


def encode_misbehaviour(misbehaviour: Misbehaviour) -> log_pb2.Misbehaviour:
    return log_pb2.Misbehaviour(kind=misbehaviour.kind, origin=misbehaviour.origin, parts=misbehaviour.parts)


def decode_misbehaviour(message: log_pb2.Misbehaviour) -> Misbehaviour:
    return Misbehaviour(
        kind=checks.text(message.kind, "kind of misbehaviour", limits.WORD),
        origin=checks.origin(message.origin),
        parts=checks.many(
            message.parts,
            "parts of a proof",
            limits.MISBEHAVIOUR_PARTS,
            lambda part: checks.data(part, "part of a proof", limits.PROOF),
        ),
    )


def encode_page(page: SearchPage) -> artifact_pb2.SearchResponse:
    return artifact_pb2.SearchResponse(found=map(encode_located, page.found), next_cursor=page.next_cursor)


def decode_page(message: artifact_pb2.SearchResponse) -> SearchPage:
    return SearchPage(
        found=checks.many(message.found, "results", limits.SEARCH_PAGE, decode_located),
        next_cursor=checks.text(message.next_cursor, "cursor", limits.TOKEN),
    )


def encode_stat(stat: BlobStat) -> blob_pb2.BlobStat:
    return blob_pb2.BlobStat(digest=digest_bytes(stat.digest), have=stat.have, size=stat.size)


def decode_stat(message: blob_pb2.BlobStat) -> BlobStat:
    return BlobStat(checks.digest(message.digest), message.have, checks.integer(message.size, "size"))


def encode_location(location: Location) -> blob_pb2.Location:
    return blob_pb2.Location(kind=location.kind, url=location.url)


def decode_location(message: blob_pb2.Location) -> Location:
    return Location(
        kind=checks.text(message.kind, "kind of location", limits.WORD),
        url=checks.text(message.url, "location", limits.PATH),
    )


def encode_inline(inline: InlineObject) -> publish_pb2.InlineObject:
    return publish_pb2.InlineObject(digest=digest_bytes(inline.digest), data=inline.data)


def decode_inline(message: publish_pb2.InlineObject) -> InlineObject:
    return InlineObject(checks.digest(message.digest), checks.data(message.data, "object", limits.SUBMIT_BYTES))


def encode_submitted(submitted: Submitted) -> publish_pb2.SubmitResponse:
    return publish_pb2.SubmitResponse(
        submission=digest_bytes(submitted.submission),
        missing=map(_encode_missing, submitted.missing),
        receipts=map(_encode_receipt, submitted.receipts),
    )


def decode_submitted(message: publish_pb2.SubmitResponse) -> Submitted:
    """Refuses an answer that is neither or both: something is missing, or everything is logged."""
    if bool(message.missing) == bool(message.receipts):
        raise Malformed("not an answer to a submission", why="either objects are missing or there are receipts")
    return Submitted(
        submission=checks.digest(message.submission),
        missing=checks.many(message.missing, "missing objects", limits.MISSING, _decode_missing),
        receipts=checks.many(message.receipts, "receipts", limits.SUBMIT_LINES, _decode_receipt),
    )


def _encode_missing(missing: MissingObject) -> publish_pb2.MissingObject:
    named = types_pb2.ObjectSize(digest=digest_bytes(missing.digest), size=missing.size)
    return publish_pb2.MissingObject(object=named, received=missing.received)


def _decode_missing(message: publish_pb2.MissingObject) -> MissingObject:
    size = checks.integer(message.object.size, "size")
    return MissingObject(
        digest=checks.digest(message.object.digest),
        size=size,
        received=checks.integer(message.received, "received bytes", most=size),
    )


def _encode_receipt(receipt: Receipt) -> publish_pb2.Receipt:
    return publish_pb2.Receipt(
        origin=receipt.origin, index=receipt.index, line_digest=digest_bytes(receipt.line_digest)
    )


def _decode_receipt(message: publish_pb2.Receipt) -> Receipt:
    return Receipt(
        origin=checks.origin(message.origin),
        index=checks.integer(message.index, "index"),
        line_digest=checks.digest(message.line_digest),
    )


def encode_upload_header(header: UploadHeader) -> publish_pb2.UploadHeader:
    return publish_pb2.UploadHeader(
        submission=digest_bytes(header.submission),
        object=types_pb2.ObjectSize(digest=digest_bytes(header.digest), size=header.size),
        offset=header.offset,
    )


def decode_upload_header(message: publish_pb2.UploadHeader) -> UploadHeader:
    size = checks.integer(message.object.size, "size")
    return UploadHeader(
        submission=checks.digest(message.submission),
        digest=checks.digest(message.object.digest),
        size=size,
        offset=checks.integer(message.offset, "offset", most=size),
    )
