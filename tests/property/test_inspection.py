"""Arbitrary files: an inspection raises nothing, reads no more than its limit, and finds every pickle that calls a
function.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

from comity.formats.inspect import MAX_TEXT_LENGTH, inspect
from comity.formats.sanity import MAX_FINDINGS
from comity.formats.source import BUDGET
from comity.trust.evidence import KINDS, Inspection, kind_of
from hypothesis import given
from hypothesis import strategies as st
from support import weights


class Counting(io.BytesIO):
    """A file that counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


class Calls:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("it ran",)


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", b"3")
    return file.getvalue()


SAMPLES = (
    weights.safetensors({"a": b"A" * 9, "b": b"B"}, {"format": "pt"}),
    weights.gguf({"a": b"A" * 9}, tokens=("a", "b"), texts={"tokenizer.chat_template": "{{ x }}"}),
    _zipped(pickle.dumps(Calls())),
    pickle.dumps(Calls(), 0),
    b'{"auto_map": {"AutoModel": "a.B"}, "chat_template": "{{ x }}"}',
    b"\x93NUMPY\x01\x00\x0a\x00{'descr': '|O'}",
)
MARKS = [
    b"",
    *(sample[:size] for sample in SAMPLES for size in (2, 9, 30)),
    b"\x08\x07\x12\x04",
    b"\x1f\x8b\x08",
    b"x\x9c",
]
NAMES = st.sampled_from(["config.json", "model.safetensors", "a.py", "a.yaml", "t.jinja", "x/pytorch_model.bin", ""])
HARMLESS = st.one_of(st.none(), st.integers(), st.text(max_size=40), st.binary(max_size=40), st.booleans())


def looked_at(data: bytes, path: str) -> Inspection:
    file = Counting(data)
    found = inspect(file, path, len(data))
    assert file.count <= BUDGET
    assert {kind_of(active) for active in found.active} <= set(KINDS)
    assert len(found.malformed) <= MAX_FINDINGS + 1
    assert all(0 < len(text) <= MAX_TEXT_LENGTH for text in (*found.active, *found.malformed))
    return found


@given(mark=st.sampled_from(MARKS), data=st.binary(max_size=400), name=NAMES)
def test_arbitrary_bytes_are_inspected_without_an_error(mark: bytes, data: bytes, name: str) -> None:
    looked_at(mark + data, name)


@given(
    sample=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.integers(0, 2**12), st.binary(max_size=9)), max_size=4),
    cut=st.integers(0, 2**12),
    name=NAMES,
)
def test_a_damaged_file_is_inspected_without_an_error(
    sample: bytes, edits: list[tuple[int, bytes]], cut: int, name: str
) -> None:
    data = bytearray(sample)
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    looked_at(bytes(data[: cut % (2 * len(data)) + 1]), name)


@given(before=st.lists(HARMLESS, max_size=6), protocol=st.integers(0, 5), name=NAMES)
def test_no_pickle_that_calls_is_missed(before: list[object], protocol: int, name: str) -> None:
    data = pickle.dumps([*before, Calls()], protocol)
    for wrapped in (data, _zipped(data)):
        assert "pickle" in {kind_of(active) for active in looked_at(wrapped, name).active}


@given(tensors=st.dictionaries(st.text(min_size=1, max_size=15), st.binary(max_size=99), max_size=6))
def test_files_of_correct_writers_have_no_findings(tensors: dict[str, bytes]) -> None:
    tensors.pop("__metadata__", None)
    assert looked_at(weights.safetensors(tensors), "x") == Inspection("safetensors")
    sound = {name: data for name, data in tensors.items() if data}
    assert looked_at(weights.gguf(sound), "x") == Inspection("gguf")
