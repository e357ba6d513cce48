"""Core ML models: which files are one, and the classes and files that are found at each place of it."""

from __future__ import annotations

import pytest
from comity.formats import coreml as module
from comity.formats.coreml import CoreMlFindings, CoreMlReader, is_coreml
from comity.formats.messages import MAX_NESTED, MAX_TEXT
from comity.formats.source import BoundedFile, NotInspected, Work
from comity.trust.errors import Malformed
from support.model_files import coreml, coreml_layer, coreml_network, coreml_program, message


def source(data: bytes, work: Work | None = None) -> BoundedFile:
    return BoundedFile.of(data, work or Work())


def found_in(data: bytes) -> CoreMlFindings:
    return CoreMlReader(source(data)).read()


def classes(data: bytes) -> list[str]:
    return list(found_in(data).classes)


CUSTOM = coreml_layer(500, message((10, b"Evil")))
NETWORK = coreml_network(coreml_layer(140))


@pytest.mark.parametrize("kind", [200, 500, 502, 2000, 3000])
def test_a_model_has_version_description_and_one_type(kind: int) -> None:
    data = coreml(kind, b"")
    assert is_coreml(source(data))
    assert is_coreml(source(data + message((10, 1))))
    assert not is_coreml(source(data + message((kind, b""))))  # two types
    assert not is_coreml(source(data[:-1]))
    assert not is_coreml(source(data + message((11, 1))))
    assert not is_coreml(source(data + b"\x0b"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message((1, 4), (2, b"")),  # without a type
        message((1, 4), (500, b"")),  # without a description
        message((2, b""), (1, 4), (500, b"")),  # not first the version
        message((1, 4), (2, 1), (500, b"")),
        message((1, 4), (2, b""), (500, 1)),
        message((1, 4), (2, b""), (199, b"")),
        message((1, 4), (2, b""), (3001, b"")),
        message((1, 4), (2, b""), (10, b""), (500, b"")),
    ],
)
def test_other_messages_are_no_model(data: bytes) -> None:
    assert not is_coreml(source(data))


def test_a_model_of_too_many_fields_is_not_taken_for_another_format() -> None:
    with pytest.raises(NotInspected):
        is_coreml(source(coreml(500, b"") + message(*((10, 1),) * 500), Work(steps=100)))


@pytest.mark.parametrize("kind", [303, 403, 500])
def test_a_custom_layer_is_found_in_each_kind_of_network(kind: int) -> None:
    assert classes(coreml(kind, coreml_network(coreml_layer(140), CUSTOM))) == ["Evil"]
    assert classes(coreml(kind, NETWORK)) == []
    assert classes(coreml(501, coreml_network(CUSTOM))) == []  # no network


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [(605, 1, True), (605, 2, True), (605, 3, False), (615, 1, False), (615, 3, True), (615, 4, True)],
)
def test_a_custom_layer_is_found_in_the_bodies_of_branches_and_loops(kind: int, body: int, found: bool) -> None:
    layer = coreml_layer(kind, message((body, coreml_network(CUSTOM))))
    assert classes(coreml(500, coreml_network(layer))) == (["Evil"] if found else [])


@pytest.mark.parametrize("kind", [200, 201, 202])
def test_each_model_of_a_pipeline_is_read(kind: int) -> None:
    models = message((1, coreml(500, NETWORK)), (1, coreml(500, coreml_network(CUSTOM))))
    assert classes(coreml(kind, models if kind == 202 else message((1, models)))) == ["Evil"]


def test_a_custom_model_without_a_name_is_found_and_the_last_name_holds() -> None:
    assert classes(coreml(555, b"")) == ["?"]
    assert classes(coreml(555, message((1, b"First"), (1, b"Last")))) == ["Last"]
    assert classes(coreml(500, coreml_network(coreml_layer(500)))) == ["?"]
    both = coreml_network(CUSTOM, coreml_layer(500, message((10, b"Other"))), CUSTOM)
    assert classes(coreml(500, both)) == ["Evil", "Other"]


@pytest.mark.parametrize("kind", [556, 3000])
def test_a_model_in_another_form_is_not_inspected(kind: int) -> None:
    with pytest.raises(NotInspected, match="linked, or serialised"):
        found_in(coreml(kind, b""))


@pytest.mark.parametrize(
    ("file", "outside"),
    [
        ("@model_path/weights/weight.bin", False),
        ("@model_path/a..b", False),
        ("@model_path/../a", True),
        ("@model_path/a\\..\\..\\b", True),
        ("/a", True),
        ("@model_pat/a", True),
        ("", True),
    ],
)
def test_a_file_is_inside_below_the_path_of_the_model(file: str, outside: bool) -> None:
    found = found_in(coreml(502, coreml_program(file)))
    assert found == CoreMlFindings(outside={file: None} if outside else {})


def program(block: bytes) -> bytes:
    function = message((3, message((1, b"CoreML5"), (2, block))))
    return coreml(502, message((2, message((1, b"main"), (2, function)))))


FILE = message((5, message((1, b"/a"))))
"""A value in a file."""


@pytest.mark.parametrize(
    "operation",
    [
        message((5, message((2, FILE)))),  # an attribute
        message((2, message((2, message((1, message((2, FILE)))))))),  # an input
        message((4, message((3, message((5, message((2, FILE)))))))),  # an operation in a block of its own
    ],
)
def test_files_of_attributes_inputs_and_inner_blocks_are_named(operation: bytes) -> None:
    assert found_in(program(message((3, operation)))).outside == {"/a": None}


def test_levels_names_and_fields_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(levels: int) -> bytes:
        network = coreml_network(CUSTOM)
        for _ in range(levels):
            network = coreml_network(coreml_layer(605, message((1, network))))
        return coreml(500, network)

    def pipelines(levels: int) -> bytes:
        made = coreml(500, coreml_network(CUSTOM))
        for _ in range(levels):
            made = coreml(202, message((1, made)))
        return made

    def blocks(levels: int) -> bytes:
        block = message((3, message((5, message((2, FILE))))))
        for _ in range(levels):
            block = message((3, message((4, block))))
        return program(block)

    assert classes(nested(MAX_NESTED)) == classes(pipelines(MAX_NESTED)) == ["Evil"]
    assert found_in(blocks(MAX_NESTED)).outside == {"/a": None}
    for deep in (nested(MAX_NESTED + 1), pipelines(MAX_NESTED + 1), blocks(MAX_NESTED + 1)):
        with pytest.raises(NotInspected, match=f"more than {MAX_NESTED} levels"):
            found_in(deep)
    assert classes(coreml(555, message((1, b"n" * MAX_TEXT)))) == ["n" * MAX_TEXT]
    with pytest.raises(NotInspected, match=f"a name of {MAX_TEXT + 1} bytes"):
        found_in(coreml(555, message((1, b"n" * (MAX_TEXT + 1)))))
    monkeypatch.setattr(module, "MAX_FIELDS", 4)
    assert classes(coreml(555, message((1, b"E")))) == ["E"]  # three fields of the model, and one of the class
    with pytest.raises(NotInspected, match="more than 4 fields"):
        found_in(coreml(555, message((1, b"E"), (1, b"F"))))


@pytest.mark.parametrize("cut", [1, 5])
def test_a_part_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(Malformed):
        found_in(coreml(500, coreml_network(CUSTOM)[:-cut]))
