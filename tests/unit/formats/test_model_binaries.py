"""Files of whisper.cpp, fastText and Core ML, and fonts: clean as a whole, and if they name nothing that is called."""

from __future__ import annotations

import io

import pytest
from comity.formats.inspect import inspect
from comity.trust.evidence import Inspection
from support.model_files import (
    coreml,
    coreml_layer,
    coreml_network,
    coreml_program,
    coreml_weights,
    fasttext,
    font,
    message,
    whisper,
)

NETWORK = coreml(500, coreml_network(coreml_layer(140), coreml_layer(130)))
PROGRAM = coreml(502, coreml_program("@model_path/weights/weight.bin"))
WHOLE = {
    "ggml-tiny.bin": ("ggml", whisper()),
    "lid.176.bin": ("fasttext", fasttext()),
    "lid.176.ftz": ("fasttext", fasttext(quantised=True)),
    "a.mlmodel": ("coreml", NETWORK),
    "model.mlmodel": ("coreml", PROGRAM),
    "weight.bin": ("coreml", coreml_weights(b"1" * 100, b"2" * 64)),
    "a.ttf": ("font", font()),
}


def look(data: bytes, path: str) -> Inspection:
    return inspect(io.BytesIO(data), path, len(data))


def is_clean(seen: Inspection) -> bool:
    return not (seen.active or seen.malformed)


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_file_is_clean(path: str) -> None:
    kind, data = WHOLE[path]
    assert look(data, path) == Inspection(kind)


@pytest.mark.parametrize("path", WHOLE)
def test_a_file_that_ends_elsewhere_is_not_clean(path: str) -> None:
    _, data = WHOLE[path]
    cut = [length for length in range(64, len(data) - 64) if is_clean(look(data[:length], path))]
    assert len(cut) == (2 if path == "ggml-tiny.bin" else 0)  # ggml has no count of tensors: it may end before each
    assert not is_clean(look(data + bytes(65), path))


def test_a_class_of_the_app_is_named_wherever_it_is() -> None:
    custom = coreml_layer(500, message((10, b"Evil")))
    inner = coreml_network(custom)
    models = {
        "layer": coreml(403, inner),
        "branch": coreml(500, coreml_network(coreml_layer(605, message((1, b""), (2, inner))))),
        "loop": coreml(500, coreml_network(coreml_layer(615, message((1, 3), (4, inner))))),
        "pipeline": coreml(202, message((1, NETWORK), (1, coreml(500, inner)))),
        "classifier": coreml(200, message((1, message((1, coreml(303, inner)))))),
        "model": coreml(555, message((1, b"Evil"))),
    }
    found = {what: look(data, "a.mlmodel").active for what, data in models.items()}
    assert found == dict.fromkeys(models, ("custom-operator: the class Evil",))


def test_a_linked_model_is_not_inspected() -> None:
    assert look(coreml(556, b""), "a.mlmodel").active[0].startswith("not-inspected")


@pytest.mark.parametrize("file", ["/etc/passwd", "@model_path/../../a", "a"])
def test_a_file_outside_the_package_is_named(file: str) -> None:
    assert look(coreml(502, coreml_program(file)), "a.mlmodel").malformed == (
        f"coreml: a file outside the package: {file!r}",
    )


def test_a_model_of_another_program_in_ggml_is_not_inspected() -> None:
    assert look(b"lmgg" + bytes(400), "ggml-a.bin").active[0].startswith("not-inspected")
    assert look(b"tjgg" + bytes(400), "ggml-a.bin").active[0].startswith("not-inspected")


def test_bytes_between_the_tables_of_a_font_and_its_end_are_a_finding() -> None:
    assert look(font() + b"more!", "a.ttf").malformed == ("font: its tables do not fill the file",)
    assert look(font({b"cmap": b""}), "a.ttf").malformed == ("font: a table is missing",)
    woff = b"wOF2\0\1\0\0" + (100).to_bytes(4, "big") + bytes(88)
    assert is_clean(look(woff, "a.woff2")) and not is_clean(look(woff + b"1", "a.woff2"))
