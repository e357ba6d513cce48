"""Codecs are inverses within the bounds; arbitrary messages of a peer become a value or Malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import NoteSignature
from comity.v1 import (
    artifact_pb2,
    blob_pb2,
    bundle_pb2,
    charter_pb2,
    log_pb2,
    news_pb2,
    node_pb2,
    operator_pb2,
    publish_pb2,
    types_pb2,
)
from comity.wire import limits
from comity.wire.addresses import GatewayUrl
from comity.wire.artifact import ArtifactService, SearchPage
from comity.wire.blob import BlobLocation, BlobStat
from comity.wire.bundle import LOAD_EVENT, LoadedArtifact, LoadedCharter, LoadedLog, LoadEnded, LoadWaiting
from comity.wire.charter import AskReceipt, CharterService, JoinRequest
from comity.wire.codec import MessageCodec
from comity.wire.log import BATCH, EntryBatch, LocatedProof, LogHead, LogService, ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity.wire.news import NEWS, KnownCosignatures, LogNews, News
from comity.wire.node import CHARTER, Charter, NodeFacts, NodeService, ReplicaCounts
from comity.wire.node_status import (
    STATUS,
    DraftStatus,
    DutyStatus,
    ForkStatus,
    GovernanceStatus,
    LackingArtifact,
    LogStatus,
    MemberStatus,
    NodeStatus,
    PeerStatus,
    Quota,
    ReplicationStatus,
    ShortArtifact,
    StoreStatus,
)
from comity.wire.publish import (
    SUBMITTED,
    UPLOAD_HEADER,
    InlineObject,
    MissingObject,
    SubmitReceipt,
    Submitted,
    UploadHeader,
)
from comity.wire.rpc import rpc_of
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

NODE, PAGE, LOCATED, HEAD, PROOF, MISBEHAVIOUR, ASK_RECEIPT, JOIN_REQUEST = (
    rpc_of(method).answer
    for method in (
        NodeService.node,
        ArtifactService.search,
        ArtifactService.claims,
        LogService.logs,
        LogService.proofs,
        LogService.misbehaviour,
        CharterService.ask,
        CharterService.asks,
    )
)
STAT = MessageCodec(BlobStat, blob_pb2.BlobStat)
LOCATION = MessageCodec(BlobLocation, blob_pb2.Location)
KNOWN = MessageCodec(KnownCosignatures, news_pb2.KnownCosignatures)
INLINE = MessageCodec(InlineObject, publish_pb2.InlineObject)
digests = st.binary(min_size=32, max_size=32).map(lambda data: Digest(data.hex()))
integers = st.integers(0, limits.INTEGER)
printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")  # as `str.isprintable`
names = sentences = texts = st.text(printable, max_size=16).map(lambda text: " ".join(text.split()))
"""At most 64 bytes. What is for people is cleaned before it is sent, so other white space does not come back."""
origins = st.from_regex(r"[a-z0-9./-]{1,60}", fullmatch=True)
data = st.binary(max_size=50)
lines = st.binary(min_size=1, max_size=50).filter(lambda line: b"\n" not in line)
locateds = st.builds(LocatedEntry, origins, integers, lines)


def tuples(of: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, min_size=least, max_size=4).map(tuple)


def within(size: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(0, size).flatmap(lambda whole: st.tuples(st.just(whole), st.integers(0, whole)))


missing = st.builds(lambda digest, sizes: MissingObject(digest, *sizes), digests, within(limits.INTEGER))
receipts = st.builds(SubmitReceipt, origins, integers, digests)
submitted = st.one_of(
    st.builds(lambda d, m: Submitted(d, m, ()), digests, tuples(missing, 1)),
    st.builds(lambda d, r: Submitted(d, (), r), digests, tuples(receipts, 1)),
)
counts = st.builds(ReplicaCounts, integers, integers, integers, integers, integers)
key_ids = st.binary(min_size=4, max_size=4)
cosignatures = st.builds(NoteSignature, origins, key_ids, st.binary(min_size=1, max_size=50))
log_news = st.builds(LogNews, origins, data, integers, tuples(cosignatures))
statuses = st.builds(
    NodeStatus,
    software=texts,
    origin=origins,
    started=integers,
    peers=tuples(
        st.builds(PeerStatus, texts, texts, texts, st.booleans(), integers, integers, sentences, st.booleans())
    ),
    logs=tuples(st.builds(LogStatus, origins, integers, st.booleans(), integers, tuples(names))),
    store=st.builds(StoreStatus, integers, integers, st.none() | integers, integers),
    holds=integers,
    misbehaviour=integers,
    quotas=tuples(st.builds(Quota, names, integers, integers)),
    warnings=tuples(sentences),
    governance=st.none()
    | st.builds(
        GovernanceStatus,
        federation=digests,
        epoch=integers,
        body=digests,
        stopped=st.booleans(),
        round=integers,
        drafts=tuples(
            st.builds(DraftStatus, digests, names, sentences, integers, integers, integers, tuples(names), sentences)
        ),
        duties=tuples(st.builds(DutyStatus, names, texts, digests, integers, sentences, st.booleans())),
        forks=tuples(st.builds(ForkStatus, integers, digests, digests, st.booleans())),
        liars=tuples(names),
        asks=integers,
        members=tuples(st.builds(MemberStatus, names, st.none() | integers, integers)),
        crowded=tuples(origins),
    ),
    replication=st.none()
    | st.builds(
        ReplicationStatus,
        counts,
        integers,
        tuples(st.builds(LackingArtifact, digests, names, texts, sentences, names, integers)),
        tuples(st.builds(ShortArtifact, digests, names, integers)),
    ),
)
gateways = st.sampled_from(["https://models.example.org", "http://[2001:db8::1]:7480/hub"]).map(GatewayUrl.parse)
facts = st.builds(
    NodeFacts,
    texts,
    origins,
    st.none() | lines,
    tuples(lines),
    st.none() | lines,
    tuples(texts),
    st.none() | gateways,
    st.none() | counts,
)

PAIRS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Message], Callable[[Any], Any], type[Message]]] = {
    "node": (facts, NODE.encode, NODE.decode, node_pb2.GetNodeResponse),
    "charter": (
        st.builds(Charter, integers, data, tuples(lines)),
        CHARTER.encode,
        CHARTER.decode,
        node_pb2.GetCharterResponse,
    ),
    "ask receipt": (
        st.builds(AskReceipt, digests, integers, integers),
        ASK_RECEIPT.encode,
        ASK_RECEIPT.decode,
        charter_pb2.AskResponse,
    ),
    "join request": (
        st.builds(JoinRequest, digests, integers, tuples(lines, 1)),
        JOIN_REQUEST.encode,
        JOIN_REQUEST.decode,
        charter_pb2.JoinRequest,
    ),
    "head": (st.builds(LogHead, origins, texts, data), HEAD.encode, HEAD.decode, types_pb2.LogHead),
    "located": (locateds, LOCATED.encode, LOCATED.decode, types_pb2.Located),
    "batch": (
        st.builds(EntryBatch, integers, tuples(lines, 1)),
        BATCH.encode,
        BATCH.decode,
        log_pb2.EntryBatch,
    ),
    "proof": (st.builds(LocatedProof, origins, data), PROOF.encode, PROOF.decode, log_pb2.LocatedProof),
    "misbehaviour": (
        st.builds(ShownMisbehaviour, texts, origins, tuples(data)),
        MISBEHAVIOUR.encode,
        MISBEHAVIOUR.decode,
        log_pb2.Misbehaviour,
    ),
    "news": (
        st.builds(
            News,
            data,
            st.booleans(),
            st.lists(log_news, max_size=4, unique_by=lambda item: item.log).map(tuple),
            integers,
            st.none() | digests,
        ),
        NEWS.encode,
        NEWS.decode,
        news_pb2.News,
    ),
    "known cosignatures": (
        st.builds(KnownCosignatures, origins, integers, tuples(st.tuples(key_ids, integers))),
        KNOWN.encode,
        KNOWN.decode,
        news_pb2.KnownCosignatures,
    ),
    "page": (
        st.builds(SearchPage, tuples(locateds), texts),
        PAGE.encode,
        PAGE.decode,
        artifact_pb2.SearchResponse,
    ),
    "stat": (
        st.builds(BlobStat, digests, st.booleans(), integers),
        STAT.encode,
        STAT.decode,
        blob_pb2.BlobStat,
    ),
    "location": (st.builds(BlobLocation, texts, texts), LOCATION.encode, LOCATION.decode, blob_pb2.Location),
    "load event": (
        st.one_of(
            st.builds(LoadedCharter, integers, integers, sentences, texts),
            st.builds(
                LoadedLog, st.just("log.example/1+c5a2f1b9+AQID"), integers, integers, integers, sentences, texts
            ),
            st.builds(LoadedArtifact, digests, names, sentences, texts),
            st.builds(LoadWaiting),
            st.builds(LoadEnded, st.booleans(), integers),
        ),
        LOAD_EVENT.encode,
        LOAD_EVENT.decode,
        bundle_pb2.LoadBundleResponse,
    ),
    "inline": (
        st.builds(InlineObject, digests, data),
        INLINE.encode,
        INLINE.decode,
        publish_pb2.InlineObject,
    ),
    "submitted": (submitted, SUBMITTED.encode, SUBMITTED.decode, publish_pb2.SubmitResponse),
    "upload": (
        st.builds(lambda a, b, sizes: UploadHeader(a, b, *sizes), digests, digests, within(limits.INTEGER)),
        UPLOAD_HEADER.encode,
        UPLOAD_HEADER.decode,
        publish_pb2.UploadHeader,
    ),
    "status": (
        statuses,
        STATUS.encode,
        STATUS.decode,
        operator_pb2.GetStatusResponse,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@given(st.data())
def test_a_value_survives_the_round_trip(name: str, drawn: st.DataObject) -> None:
    values, encode, decode, message = PAIRS[name]
    value = drawn.draw(values)
    assert decode(message.FromString(encode(value).SerializeToString())) == value


@pytest.mark.parametrize("name", PAIRS)
@given(st.binary(max_size=200))
def test_any_message_becomes_a_value_or_malformed(name: str, sent: bytes) -> None:
    _, encode, decode, message = PAIRS[name]
    try:
        value = decode(message.FromString(sent))
    except (DecodeError, Malformed):
        return
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (LOCATED.decode, types_pb2.Located(origin="", index=1, line=b"x")),
        (LOCATED.decode, types_pb2.Located(origin="a b", index=1, line=b"x")),
        (LOCATED.decode, types_pb2.Located(origin="a+b", index=1, line=b"x")),
        (LOCATED.decode, types_pb2.Located(origin="a\x1b", index=1, line=b"x")),
        (LOCATED.decode, types_pb2.Located(origin="a" * 256, index=1, line=b"x")),
        (LOCATED.decode, types_pb2.Located(origin="a", index=2**53, line=b"x")),
        (LOCATED.decode, types_pb2.Located(origin="a", index=1, line=b"")),
        (LOCATED.decode, types_pb2.Located(origin="a", index=1, line=b"x\n")),
        (LOCATED.decode, types_pb2.Located(origin="a", index=1, line=b"x" * 65_536)),
        (BATCH.decode, log_pb2.EntryBatch(start=1)),
        (BATCH.decode, log_pb2.EntryBatch(start=1, lines=[b"x"] * (limits.BATCH_LINES + 1))),
        (HEAD.decode, types_pb2.LogHead(origin="a", note=b"x" * (limits.NOTE + 1))),
        (JOIN_REQUEST.decode, charter_pb2.JoinRequest(member=bytes(32))),
        (JOIN_REQUEST.decode, charter_pb2.JoinRequest(member=bytes(32), lines=[b"x"] * 33)),
        (JOIN_REQUEST.decode, charter_pb2.JoinRequest(member=bytes(32), lines=[b"x" * 60_000] * 5)),
        (STAT.decode, blob_pb2.BlobStat(digest=b"x" * 31)),
        (STAT.decode, blob_pb2.BlobStat(digest=b"x" * 33)),
        (LOCATION.decode, blob_pb2.Location(kind="https-range", url="https://a/\r\nX: y")),
        (SUBMITTED.decode, publish_pb2.SubmitResponse(submission=bytes(32))),
        (
            SUBMITTED.decode,
            publish_pb2.SubmitResponse(
                submission=bytes(32),
                missing=[publish_pb2.MissingObject(object=types_pb2.ObjectSize(digest=bytes(32)))],
                receipts=[publish_pb2.Receipt(origin="a", line_digest=bytes(32))],
            ),
        ),
        (
            UPLOAD_HEADER.decode,
            publish_pb2.UploadHeader(
                submission=bytes(32), object=types_pb2.ObjectSize(digest=bytes(32), size=5), offset=6
            ),
        ),
    ],
)
def test_a_value_beyond_a_bound_is_malformed(decode: Callable[[Any], Any], message: Message) -> None:
    with pytest.raises(Malformed):
        decode(message)


def test_a_text_in_a_status_is_cleaned_before_it_is_sent() -> None:
    status = NodeStatus("s", "o", 0, (), (), StoreStatus(0, 0, None, 0), 0, 0, (), ("two\nlines \x1b" + "x" * 5_000,))
    (warning,) = STATUS.decode(STATUS.encode(status)).warnings
    assert warning.startswith("two lines \N{REPLACEMENT CHARACTER}x")
    assert len(warning.encode()) <= limits.STATUS_TEXT
