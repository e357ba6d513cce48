"""Codecs that are derived from values: the same bytes as before for every message, and a rule for every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from comity.trust.errors import Malformed
from comity.v1 import blob_pb2, news_pb2, operator_pb2, publish_pb2
from comity.wire import (
    artifact,
    audit,
    blob,
    bundle,
    charter,
    log,
    messages,
    news,
    node,
    node_status,
    offer,
    operator,
    pin,
    publish,
    upstream,
)
from comity.wire.codec import At, Items, MessageCodec, OneOfCodec, Text
from comity.wire.rpc import OneField

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wire.json").read_text())
SERVICES = (artifact, audit, blob, bundle, charter, log, news, node, offer, operator, pin, publish, upstream)
PARTS: tuple[MessageCodec[Any, Any], ...] = (
    MessageCodec(blob.BlobStat, blob_pb2.BlobStat),
    MessageCodec(blob.BlobLocation, blob_pb2.Location),
    MessageCodec(news.KnownCosignatures, news_pb2.KnownCosignatures),
    MessageCodec(publish.InlineObject, publish_pb2.InlineObject),
)
"""Of messages that are only parts of others."""


def codecs() -> Iterator[Any]:
    """Every codec of the services: those that are named, and those of what calls ask and answer."""
    for module in (messages, node_status, *SERVICES):
        yield from (found for name, found in vars(module).items() if not name.startswith("_"))
    for rpc in (rpc for module in SERVICES for rpc in module.rpc.declared if rpc.serve is None and not rpc.raw):
        yield from (rpc.answer, *([rpc.request.codec] if rpc.request.whole else []))
    yield from PARTS


CODECS = {
    codec.message.DESCRIPTOR.name: (codec.message, codec)
    for codec in codecs()
    if isinstance(codec, (MessageCodec, OneOfCodec, OneField))
}
WHOLE = {
    kind.name
    for module in SERVICES
    for method in module.rpc.service.methods
    for kind in (method.input_type, method.output_type)
}
"""Requests and answers, which `test_wire_vectors` compares too."""


def test_every_message_has_vectors() -> None:
    assert CODECS.keys() - VECTORS.keys() - WHOLE == {"Held", "MissingObject"}  # parts of others
    assert VECTORS.keys() - CODECS.keys() == {"SmallObject"}


@pytest.mark.parametrize("name", sorted(VECTORS.keys() & CODECS.keys()))
def test_a_message_has_the_bytes_that_the_codecs_written_by_hand_gave_it(name: str) -> None:
    message, codec = CODECS[name]
    for recorded in map(bytes.fromhex, VECTORS[name]):
        value = codec.decode(message.FromString(recorded))
        assert codec.encode(value).SerializeToString(deterministic=True) == recorded


def test_several_objects_in_one_message_have_the_same_bytes() -> None:
    for recorded in map(bytes.fromhex, VECTORS["SmallObject"]):
        objects = blob.decode_objects(blob_pb2.SmallObject.FromString(recorded))
        assert blob.encode_objects(objects).SerializeToString(deterministic=True) == recorded


@dataclass(frozen=True, slots=True)
class WithoutRule:
    name: str


@dataclass(frozen=True, slots=True)
class Misnamed:
    nome: Annotated[str, Text(8)]


def test_a_field_without_a_rule_or_under_another_name_has_no_codec() -> None:
    with pytest.raises(TypeError, match=r"PeerStatus\.name needs a rule"):
        MessageCodec(WithoutRule, operator_pb2.PeerStatus).decode(operator_pb2.PeerStatus())
    with pytest.raises(KeyError):
        MessageCodec(Misnamed, operator_pb2.PeerStatus).decode(operator_pb2.PeerStatus())


@dataclass(frozen=True, slots=True)
class Some:
    size: Annotated[int, At("object.size")]


@dataclass(frozen=True, slots=True)
class Examples:
    names: Annotated[tuple[Annotated[str, Text(8)], ...], At("missing"), Items(2, cut=True)]


def test_a_field_is_found_in_a_message_of_the_message() -> None:
    codec = MessageCodec(Some, publish_pb2.MissingObject)
    assert codec.decode(publish_pb2.MissingObject.FromString(codec.encode(Some(7)).SerializeToString())) == Some(7)


def test_examples_beyond_the_limit_are_left_out_and_never_read() -> None:
    codec = MessageCodec(Examples, operator_pb2.DraftStatus)
    assert list(codec.encode(Examples(("a", "b", "c"))).missing) == ["a", "b"]
    with pytest.raises(Malformed, match="too many names"):
        codec.decode(operator_pb2.DraftStatus(missing=["a", "b", "c"]))


def test_a_text_for_people_is_cleaned_before_it_is_sent_and_refused_if_it_was_not() -> None:
    codec = MessageCodec(Examples, operator_pb2.DraftStatus)
    (name,) = codec.encode(Examples(("a\x1b" + "x" * 50,))).missing
    assert name == "a\N{REPLACEMENT CHARACTER}xxxx"
    with pytest.raises(Malformed):
        codec.decode(operator_pb2.DraftStatus(missing=["a\x1b"]))


def test_a_kind_of_message_that_is_not_known_is_malformed() -> None:
    with pytest.raises(Malformed, match="unknown event"):
        upstream.EVENT.decode(upstream.EVENT.message())
