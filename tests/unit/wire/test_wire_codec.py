"""Codecs that are derived from values: the same bytes as before for every message, and a rule for every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from comity.trust.errors import Malformed
from comity.v1 import blob_pb2, operator_pb2, publish_pb2
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
    pin,
    publish,
    upstream,
)
from comity.wire.codec import At, Items, MessageCodec, OneOfCodec, Text
from google.protobuf.message import Message

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wire.json").read_text())
SERVICES = (artifact, audit, blob, bundle, charter, log, news, node, node_status, offer, pin, publish, upstream)
MODULES = (messages, *SERVICES)


def codecs() -> Iterator[tuple[type[Message], Any]]:
    """Every codec of the services, with its message."""
    for module in MODULES:
        for name, found in vars(module).items():
            if isinstance(found, (MessageCodec, OneOfCodec)) and not name.startswith("_"):
                yield found.message, found


CODECS = {message.DESCRIPTOR.name: (message, codec) for message, codec in codecs()}


def test_every_message_has_vectors() -> None:
    assert CODECS.keys() - VECTORS.keys() == {"MissingObject", "AskChallengesRequest"}  # parts of others, and a request
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
