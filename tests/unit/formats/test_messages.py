"""Protocol Buffers messages of models: which bytes are one, how far they are followed, what an ONNX model names."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest
from comity.formats import messages
from comity.formats.messages import (
    MAX_NESTED,
    MAX_TEXT,
    Field,
    OnnxFindings,
    OnnxReader,
    fields,
    is_graph,
    is_onnx,
    is_saved_model,
    is_sentencepiece,
    is_tensor,
)
from comity.formats.source import BoundedFile, NotInspected, Work
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_files import message

SCALAR = st.tuples(st.integers(1, 2**20), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=200)))


def source(data: bytes, work: Work | None = None) -> BoundedFile:
    return BoundedFile.of(data, work or Work())


def read_all(data: bytes) -> list[Field]:
    return list(fields(source(data), 0, len(data)))


@settings(max_examples=40, deadline=None)
@given(st.lists(SCALAR, max_size=8))
def test_fields_are_those_that_were_written(items: list[tuple[int, bytes | int]]) -> None:
    data = message(*items)
    assert [
        (item.key, data[item.at : item.at + item.length] if item.kind == 2 else item.number) for item in read_all(data)
    ] == items


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_fields_within_them_or_refused(data: bytes) -> None:
    try:
        found = read_all(data)
    except Malformed:
        return
    assert all(item.at > 0 and item.at + item.length <= len(data) for item in found)


def test_numbers_of_fixed_width_are_stepped_over() -> None:
    data = bytes([1 << 3 | 1]) + bytes(8) + bytes([2 << 3 | 5]) + bytes(4)
    assert read_all(data) == [Field(1, 1, 1, 8), Field(2, 5, 10, 4)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x0b",  # a group
        b"\x0c",
        b"\x0e",
        b"\x0f",
        b"\x08" + b"\x80" * 10 + b"\0",  # a number of 11 bytes
        b"\x08\x80",
        b"\x0a\x05abcd",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        b"\x09" + bytes(7),
        b"\x0d" + bytes(3),
    ],
)
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_all(data)
    read_all(b"\x08" + b"\x80" * 9 + b"\x01")  # a number of 10 bytes is one


def test_a_message_may_not_exceed_the_part_that_it_is_in() -> None:
    data = message((1, b"abcd"), (2, 1))
    assert len(list(fields(source(data), 0, 6))) == 1
    with pytest.raises(Malformed):
        list(fields(source(data), 0, 5))


GRAPH = message((2, b"graph"))
KINDS: Mapping[str, tuple[Callable[[BoundedFile], bool], bytes]] = {
    "onnx": (is_onnx, message((1, 9), (2, b"a program"), (7, GRAPH))),
    "saved model": (is_saved_model, message((1, 1), (2, GRAPH))),
    "graph": (is_graph, message((1, b"node"), (3, 1))),
    "tensor": (is_tensor, message((1, 4), (2, 1), (9, bytes(16)))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_known_by_all_its_fields(kind: str) -> None:
    known, data = KINDS[kind]
    assert known(source(data))
    assert not known(source(data[:-1]))
    assert not known(source(data + message((999, 1))))
    assert not known(source(data + b"\x0b"))
    assert not known(source(b""))


@pytest.mark.parametrize(
    ("known", "data"),
    [
        (is_onnx, message((1, 9))),  # without a graph
        (is_onnx, message((7, GRAPH))),  # without a version
        (is_onnx, message((1, b"9"), (7, GRAPH))),
        (is_onnx, message((1, 9), (7, 1))),
        (is_saved_model, message((2, GRAPH), (1, 1))),
        (is_saved_model, message((1, 1))),
        (is_graph, message((3, 1))),
        (is_tensor, message((1, 4))),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_makes_it_unknown(
    known: Callable[[BoundedFile], bool], data: bytes
) -> None:
    assert not known(source(data))


def test_too_many_steps_are_not_taken_for_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    data = message((1, 9), *((14, b""),) * 500, (7, GRAPH))
    with pytest.raises(NotInspected):
        is_onnx(source(data, Work(steps=100)))
    assert is_onnx(source(data))
    monkeypatch.setattr(messages, "MAX_FIELDS", 501)
    assert is_onnx(source(data))
    monkeypatch.setattr(messages, "MAX_FIELDS", 500)
    assert not is_onnx(source(data))


def piece(text: bytes) -> bytes:
    return message((1, message((1, text)) + b"\x15" + struct.pack("<f", 0.5)))


PIECES = piece(b"<unk>") + piece(b"<s>") + piece(b"</s>")


def test_sentencepiece_begins_with_three_pieces() -> None:
    assert is_sentencepiece(source(PIECES))
    assert is_sentencepiece(source(PIECES + message((2, b"trainer"), (3, b"normalizer"))))
    assert is_sentencepiece(source(PIECES + piece(b"x" * 500)))  # a long one is a field as any other
    assert not is_sentencepiece(source(piece(b"<unk>") * 2))
    assert not is_sentencepiece(source(PIECES + message((2, 1))))
    assert not is_sentencepiece(source(PIECES + message((6, b""))))
    assert not is_sentencepiece(source(PIECES + b"\x0b"))
    assert not is_sentencepiece(source(PIECES[:-1]))
    assert not is_sentencepiece(source(message((2, b"")) + PIECES))
    assert not is_sentencepiece(source(PIECES + message((1, message((2, b"no text"))))))
    with pytest.raises(NotInspected):
        is_sentencepiece(source(PIECES + message(*((2, b""),) * 500), Work(steps=100)))


def node(*parts: tuple[int, bytes | int]) -> bytes:
    return message((1, message(*parts)))


def model(graph: bytes, *more: tuple[int, bytes | int]) -> bytes:
    return message((1, 9), (7, graph), *more)


def found_in(data: bytes, work: Work | None = None) -> OnnxFindings:
    return OnnxReader(source(data, work)).read()


def tensor(location: str, key: str = "location") -> bytes:
    return message(
        (2, 1), (13, message((1, b"length"), (2, b"4"))), (13, message((1, key.encode()), (2, location.encode())))
    )


def operators(graph: bytes, *more: tuple[int, bytes | int]) -> list[str]:
    return list(found_in(model(graph, *more)).operators)


@pytest.mark.parametrize(
    ("domain", "operator", "named"),
    [
        (b"", b"Add", []),
        (b"ai.onnx.ml", b"Scaler", []),
        (b"com.microsoft", b"Gelu", []),
        (b"my.domain", b"Add", ["my.domain::Add"]),
        (b"com.microsoft.evil", b"Add", ["com.microsoft.evil::Add"]),
        (b"", b"PythonOp", ["::PythonOp"]),
        (b"com.microsoft", b"PyOp", ["com.microsoft::PyOp"]),
        (b"\xff", b"Add", ["\ufffd::Add"]),
    ],
)
def test_operators_that_a_library_must_bring_are_named(domain: bytes, operator: bytes, named: list[str]) -> None:
    assert operators(node((4, operator), (7, domain))) == named
    assert operators(node((7, domain), (4, operator))) == named


EVIL = node((4, b"Call"), (7, b"evil"))


@pytest.mark.parametrize("key", [6, 11])
def test_operators_of_graphs_in_attributes_are_named(key: int) -> None:
    assert operators(node((4, b"If"), (5, message((key, EVIL))))) == ["evil::Call"]
    deeper = node((4, b"Loop"), (5, message((key, node((4, b"If"), (5, message((key, EVIL))))))))
    assert operators(deeper) == ["evil::Call"]


def test_operators_that_the_model_defines_are_not_named() -> None:
    function = message((1, b"Call"), (7, message((4, b"Add"))), (10, b"evil"))
    assert operators(EVIL, (25, function)) == []
    inside = message((1, b"Call"), (7, message((4, b"Run"), (7, b"other"))), (10, b"evil"))
    assert operators(EVIL, (25, inside)) == ["other::Run"]


@pytest.mark.parametrize(
    ("location", "inside"),
    [
        ("weights.bin", True),
        ("data/weights.bin", True),
        ("./weights.bin", True),
        ("a..b", True),
        ("../weights.bin", False),
        ("data/../../w", False),
        ("data\\..\\..\\w", False),
        ("/etc/passwd", False),
        ("\\\\host\\share", False),
        ("C:w", False),
        ("", False),
    ],
)
def test_external_data_outside_the_folder_is_named(location: str, inside: bool) -> None:
    expected = {} if inside else {location: None}
    attribute = message((5, tensor(location)))
    places = {
        "initializer": message((5, tensor(location))),
        "sparse": message((15, message((1, tensor(location)), (3, 1)))),
        "attribute": node((4, b"Constant"), (5, attribute)),
        "tensors": node((4, b"Constant"), (5, message((10, tensor(location))))),
        "sparse attribute": node((4, b"Constant"), (5, message((22, message((2, tensor(location))))))),
        "sparse attributes": node((4, b"Constant"), (5, message((23, message((1, tensor(location))))))),
    }
    assert {place: found_in(model(graph)).outside for place, graph in places.items()} == dict.fromkeys(places, expected)


def test_other_keys_of_external_data_name_no_file() -> None:
    assert found_in(model(message((5, tensor("/etc/passwd", "checksum"))))).outside == {}


def test_graphs_are_followed_to_a_depth() -> None:
    def nested(levels: int) -> bytes:
        graph = EVIL
        for _ in range(levels):
            graph = node((4, b"If"), (5, message((6, graph))))
        return graph

    assert operators(nested(MAX_NESTED // 2)) == ["evil::Call"]
    with pytest.raises(NotInspected, match=f"more than {MAX_NESTED} levels"):
        operators(nested(MAX_NESTED // 2 + 1))


def test_names_and_fields_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert operators(node((4, b"o" * MAX_TEXT), (7, b"d"))) == ["d::" + "o" * MAX_TEXT]
    with pytest.raises(NotInspected, match=f"a name of {MAX_TEXT + 1} bytes"):
        operators(node((4, b"o" * (MAX_TEXT + 1))))
    monkeypatch.setattr(messages, "MAX_FIELDS", 5)
    assert operators(node((4, b"a"), (7, b"d"))) == ["d::a"]  # the version, the graph, the node and its two fields
    with pytest.raises(NotInspected, match="more than 5 fields"):
        operators(node((4, b"a"), (7, b"d"), (3, b"")))
