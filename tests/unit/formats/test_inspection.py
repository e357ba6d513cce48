"""Findings of the inspection of a file: its format, the code that it would run, its faults; and that nothing runs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import marshal
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from comity.formats import texts
from comity.formats.inspect import inspect, inspect_name
from comity.formats.pickles import is_pickle
from comity.formats.source import BUDGET, MAX_DEPTH, MAX_MEMBERS, MAX_UNPACKED, BoundedFile, Work
from comity.trust.evidence import FORMATS, KINDS, Inspection, kind_of
from support import weights
from support.hdf5_files import hdf5_with_attributes


def look(data: bytes, path: str = "file.bin") -> Inspection:
    found = inspect(io.BytesIO(data), path, len(data))
    assert found.format in FORMATS  # those that a policy may name
    return found


def kinds(found: Inspection) -> set[str]:
    return {kind_of(active) for active in found.active}


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED, before: bytes = b"") -> bytes:
    file = io.BytesIO()
    file.write(before)
    with zipfile.ZipFile(file, "a" if before else "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


class Writes:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def npy(descr: str, body: bytes) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


BENIGN = pickle.dumps({"a": 1}, 2)
CALLS = pickle.dumps(Writes(Path("/nonexistent")), 2)
TORCH = {"archive/data.pkl": BENIGN, "archive/version": b"3\n", "archive/data/0": bytes(64)}
ELF = b"\x7fELF\x02\x01\x01" + bytes(57)
PE = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0"
ONNX = b"\x08\x07\x12\x04test\x3a\x03\x12\x01x\x42\x02\x10\x0b"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IEND" + bytes(4)
SENTENCEPIECE = b"".join(b"\n\x0a\n\x03" + piece + b"\x15\0\0\0\0" for piece in (b"<u>", b"<s>", b"</>"))
TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w") as _tar:
    _tar.addfile(tarfile.TarInfo("a"), io.BytesIO())


@pytest.mark.parametrize(
    ("data", "path", "expected", "active"),
    [
        pytest.param(weights.safetensors({"a": b"A" * 8}), "x.bin", "safetensors", set(), id="safetensors"),
        pytest.param(weights.gguf({"a": b"A" * 64}), "x.bin", "gguf", set(), id="gguf"),
        pytest.param(BENIGN, "config.json", "pickle", {"pickle"}, id="pickle"),
        pytest.param(pickle.dumps(Writes(Path("x")), 0), "notes.txt", "pickle", {"pickle"}, id="pickle in ASCII"),
        pytest.param(zipped(TORCH), "pytorch_model.bin", "pytorch", {"pickle"}, id="torch"),
        pytest.param(
            zipped({**TORCH, "archive/constants.pkl": BENIGN, "archive/code/__torch__.py": b"def f(): pass"}),
            "model.safetensors",
            "torchscript",
            {"torchscript", "pickle"},
            id="torchscript",
        ),
        pytest.param(npy("'<f4'", bytes(4)), "x", "numpy", set(), id="numpy"),
        pytest.param(npy("'|O'", BENIGN), "x", "numpy", {"pickle"}, id="numpy objects"),
        pytest.param(npy("[('a', '<f4'), ('b', '|O8')]", BENIGN), "x", "numpy", {"pickle"}, id="numpy fields"),
        pytest.param(zipped({"a.npy": npy("'<f4'", bytes(4))}), "x", "npz", set(), id="npz"),
        pytest.param(zipped({"a.npy": npy("'|O'", BENIGN)}), "x", "npz", {"pickle"}, id="npz of objects"),
        pytest.param(ONNX, "x", "onnx", set(), id="onnx"),
        pytest.param(SENTENCEPIECE, "tokenizer.model", "sentencepiece", set(), id="sentencepiece"),
        pytest.param(hdf5_with_attributes({"a": b"b"}), "x.h5", "hdf5", set(), id="hdf5"),
        pytest.param(
            hdf5_with_attributes({"model_config": b'{"class_name": "Lambda"}'}),
            "x.h5",
            "hdf5",
            {"keras-lambda"},
            id="keras h5",
        ),
        pytest.param(
            bytes(512) + hdf5_with_attributes({}).replace(bytes(8), (512).to_bytes(8, "little"), 1),
            "x.h5",
            "hdf5",
            {"not-inspected"},
            id="hdf5 after other bytes",
        ),
        pytest.param(b"\xac\xed\0\x05sr", "x.ser", "serialized", {"serialized"}, id="objects of Java"),
        pytest.param(gzip.compress(b"X\n\0\0\0\x03"), "x.rds", "gzip", {"serialized"}, id="objects of R"),
        pytest.param(b"\x08\x01\x12\x02\x0a\x00", "saved_model.pb", "tensorflow", {"tensorflow"}, id="saved model"),
        pytest.param(b"\x81\xa1a\x01", "flax_model.msgpack", "msgpack", set(), id="flax"),
        pytest.param(bytes(64), "model.onnx_data", "raw", set(), id="numbers of a graph"),
        pytest.param(b"SQLite format 3\0" + bytes(99), "a.db", "table", {"not-inspected"}, id="sqlite"),
        pytest.param(b"\x28\xb5\x2f\xfd" + bytes(9), "a.zst", "archive", {"archive"}, id="zstd"),
        pytest.param(
            zipped({"config.json": b'{"layers": [{"class_name": "Lambda"}]}', "metadata.json": b"{}"}),
            "x.keras",
            "keras",
            {"keras-lambda"},
            id="keras",
        ),
        pytest.param(b"import os\n", "modeling_x.py", "text", {"python"}, id="python"),
        pytest.param(
            marshal.dumps(0).join([b"\xa7\x0d\x0d\x0a" + bytes(12), b""]), "x", "bytecode", {"python"}, id="bytecode"
        ),
        pytest.param(b'{"nbformat": 4, "cells": []}', "a.ipynb", "json", {"python"}, id="notebook"),
        pytest.param(b"#!/bin/sh\n", "run", "script", {"script"}, id="shell script"),
        pytest.param(ELF, "libx.so", "executable", {"executable"}, id="shared object"),
        pytest.param(PE, "model.bin", "executable", {"executable"}, id="windows program"),
        pytest.param(TAR.getvalue(), "x.nemo", "tar", set(), id="tar"),
        pytest.param(gzip.compress(b"a\nb\n" * 9), "vocab.gz", "gzip", set(), id="gzip of text"),
        pytest.param(gzip.compress(CALLS), "x.gz", "gzip", {"pickle"}, id="gzip of a pickle"),
        pytest.param(bz2.compress(CALLS), "x", "bzip2", {"pickle"}, id="bzip2 of a pickle"),
        pytest.param(lzma.compress(CALLS), "x", "xz", {"pickle"}, id="xz of a pickle"),
        pytest.param(zlib.compress(CALLS, 3), "x.joblib", "zlib", {"pickle"}, id="zlib of a pickle"),
        pytest.param(PNG, "a.png", "image", set(), id="image"),
        pytest.param(b'{"a": 1}', "config.json", "json", set(), id="json"),
        pytest.param("[PAD]\n[CLS]\nhé\n".encode(), "vocab.txt", "text", set(), id="vocabulary"),
        pytest.param(b"", "empty", "empty", set(), id="empty"),
        pytest.param(bytes(range(256)) * 20, "x.bin", "unknown", {"unknown"}, id="unknown"),
        pytest.param(b"a: !!python/object:os.system\n", "x.yaml", "text", {"python"}, id="yaml objects"),
    ],
)
def test_a_file_is_known_by_its_bytes(data: bytes, path: str, expected: str, active: set[str]) -> None:
    found = look(data, path)
    assert (found.format, kinds(found), found.malformed) == (expected, active, ())


def test_every_kind_that_is_found_can_be_named_by_a_policy() -> None:
    samples = (BENIGN, zipped(TORCH), ELF, TAR.getvalue(), gzip.compress(CALLS), b"#!/bin/sh\n")
    assert {kind for data in samples for kind in kinds(look(data))} <= set(KINDS)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_named_and_never_run(protocol: int, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    data = pickle.dumps(Writes(ran), protocol)
    for wrapped in (data, zipped({**TORCH, "archive/data.pkl": data}), gzip.compress(data)):
        assert "pickle" in kinds(look(wrapped, "model.safetensors"))
    assert not ran.exists()
    pickle.loads(data)
    assert ran.exists()  # it would have


@pytest.mark.parametrize(
    "before",
    [
        b"N0" * 9_000,
        b"I5\n.",
        b"V" + b"x" * 3_000_000 + b"\n0",
        b"(((1",
        b"X\x00\x00\x10\x00" + bytes(1_048_576) + b"0",
        b"GIF89" + bytes(4) + b"0",
        b"VabTFL3\n0",
    ],
    ids=[
        "many opcodes",
        "another pickle",
        "a long line",
        "marks",
        "a long string",
        "an image's mark",
        "a model's mark",
    ],
)
def test_a_call_is_found_after_harmless_opcodes(before: bytes) -> None:
    assert "pickle" in kinds(look(before + pickle.dumps(Writes(Path("x")), 0)))


def test_a_pickle_that_is_read_to_the_bound_counts_as_one_and_is_named() -> None:
    strings = b"".join(b"X\x00\x10\x00\x00" + bytes(4096) + b"0" for _ in range(12_000))
    assert kinds(look(strings + pickle.dumps(Writes(Path("x")), 0))) == {"pickle"}
    lines = (b"V" + b"x" * 1_000_000 + b"\n0") * 45
    assert look(lines + pickle.dumps(Writes(Path("x")), 0)).format == "pickle"


@pytest.mark.parametrize(
    "text", [b"cat\ndog\nRun\n", b"config here\nmore\n", b"N.B. this\n", b"(((\n", b"i\nos\nsystem\n", b"csv\n(t\nR\n"]
)
def test_texts_and_word_lists_are_no_pickles(text: bytes) -> None:
    assert look(text, "vocab.txt") == Inspection("text")


def test_opcodes_beyond_the_bound_count_as_a_pickle() -> None:
    assert is_pickle(BoundedFile.of(b"N0" * 20_000, Work()))
    assert not is_pickle(BoundedFile.of(b"N0" * 9, Work()))


def test_a_pickle_is_found_in_a_member_whose_beginning_alone_is_unpacked() -> None:
    member = pickle.dumps([b"x" * 100_000, Writes(Path("x"))], 2)
    data = zipped({"a/data.pkl": member, "a/version": b"3"}, method=zipfile.ZIP_DEFLATED)
    assert kinds(look(data)) == {"pickle"}


@pytest.mark.parametrize("key", ["auto_map", "auto\\u005fmap"], ids=["plain", "escaped"])
def test_a_configuration_that_asks_for_code_is_named(key: str) -> None:
    text = f'{{"a": [{{"{key}": {{"AutoModel": "them/repo--modeling.Evil"}}}}]}}'.encode()
    assert look(text, "config.json").active == ("remote-code: auto_map imports them/repo--modeling.Evil",)


def test_a_configuration_after_white_space_is_searched() -> None:
    data = b" " * 5_000 + b'{"auto_map": {"AutoModel": "a.B"}}'
    assert kinds(look(data, "config.json")) == {"remote-code"}


def test_texts_that_are_too_large_to_read_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_DOCUMENT", 1_000_000)
    data = b"a: b\n" * 250_000
    assert kinds(look(data, "x.yaml")) == {"not-inspected"}
    assert kinds(look(data, "t.jinja")) == {"chat-template", "not-inspected"}
    assert kinds(look(data, "merges.txt")) == set()


def test_a_pickle_among_the_numbers_of_an_archive_is_found() -> None:
    found = look(zipped({**TORCH, "archive/data/more.pkl": CALLS}))
    assert "pickle: more.pkl" in found.active


def test_a_key_that_is_given_twice_hides_nothing() -> None:
    assert kinds(look(b'{"auto_map": {"AutoModel": "a.B"}, "auto_map": {}}', "config.json")) == {"remote-code"}


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 900 + b"]" * 900,
        b'{"a": ' + b'"x",' * 300_000,
        b"{" + b" " * 5_000_000,
    ],
    ids=["too deep", "not closed", "too many values", "too large"],
)
def test_a_configuration_that_cannot_be_searched_is_a_finding(data: bytes) -> None:
    assert look(b'{"a":1}' + data, "config.json").malformed
    assert look(b'{"a":1}' + data, "other.json").malformed == ()


TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (json.dumps({"chat_template": TEMPLATE}).encode(), "tokenizer_config.json"),
        (json.dumps({"chat_template": [{"name": "default", "template": TEMPLATE}]}).encode(), "chat_template.json"),
        (TEMPLATE.encode(), "chat_template.jinja"),
        (weights.gguf({}, texts={"tokenizer.chat_template": TEMPLATE}), "model.gguf"),
        (weights.gguf({}, texts={"tokenizer.chat_template.tools": TEMPLATE}), "model.gguf"),
    ],
    ids=["tokenizer", "named", "jinja", "gguf", "gguf named"],
)
def test_a_chat_template_is_found_and_one_that_reaches_for_internals_is_named_as_such(data: bytes, path: str) -> None:
    assert kinds(look(data, path)) == {"chat-template"}
    worse = json.dumps(TEMPLATE)[1:-1].encode(), json.dumps(ESCAPE)[1:-1].encode()
    hostile = weights.gguf({}, texts={"tokenizer.chat_template": ESCAPE}) if "gguf" in path else data.replace(*worse)
    assert kinds(look(hostile, path)) == {"chat-template", "template-escape"}


def bomb(unpacked: int) -> bytes:
    return zipped({"zeros": bytes(unpacked)}, method=zipfile.ZIP_DEFLATED)


def test_a_zip_bomb_is_stated_and_not_unpacked() -> None:
    data = bomb(16 * 1024 * 1024)
    found = look(data)
    assert found.malformed == (f"zip: {len(data)} bytes unpack to {16 * 1024 * 1024}",)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zlib.compress])
def test_a_stream_is_unpacked_to_its_end_or_not_inspected(pack: Callable[[bytes], bytes]) -> None:
    assert look(pack(b"a" * 8 * 1024 * 1024)).active == ()
    assert kinds(look(pack(b"a" * (MAX_UNPACKED + 1)))) == {"not-inspected"}


def test_archives_within_archives_are_followed_to_a_bound() -> None:
    inner = CALLS
    for _ in range(MAX_DEPTH):
        inner = zipped({"inner.zip": inner})
    assert kinds(look(inner)) == {"pickle"}
    assert kinds(look(zipped({"inner.zip": inner}))) == {"not-inspected"}


def test_members_beyond_the_bound_are_not_inspected() -> None:
    assert look(zipped({f"{n}.txt": b"x" for n in range(520)})).active == ()
    found = look(zipped({f"{n}.txt": b"x" for n in range(MAX_MEMBERS + 1)}))
    assert kinds(found) == {"not-inspected"}


def test_an_archive_that_would_write_outside_is_stated() -> None:
    assert look(zipped({"../../etc/x": b"x"})).malformed == (
        "zip: a member would be written outside its folder: '../../etc/x'",
    )


def test_an_archive_is_found_after_other_bytes() -> None:
    other = weights.gguf({"a": b"A" * 64})
    found = look(zipped(TORCH, before=other), "model.gguf")
    assert (found.format, found.malformed) == (
        "gguf",
        (f"zip: {len(other)} other bytes precede it", "two readings: it is also a zip archive"),
    )


def test_a_member_with_two_different_names_is_a_finding() -> None:
    data = zipped({"a.txt": b"x"})
    found = look(data.replace(b"a.txt", b"b.txt", 1))
    assert found.malformed == ("zip: a.txt has another name in its local header",)
    assert kinds(found) == {"archive"}


def test_a_files_name_gives_findings_before_its_bytes_are_here() -> None:
    assert inspect_name("src/modeling.PY").active == ("python",)
    assert inspect_name("chat_template.jinja").active == ("chat-template",)
    assert inspect_name("model.safetensors").active == ()


class Counting(io.BytesIO):
    """A file that counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("claimed", [0, 1, 2**31, 2**40, 2**63])
def test_no_more_bytes_are_read_than_the_limit_for_any_header(claimed: int) -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, claimed)
    data = header + struct.pack("<Q", 1_000_000) * 6_000_000
    file = Counting(data)
    inspect(file, "model.gguf", len(data))
    assert file.count <= BUDGET


@pytest.mark.parametrize(
    "line",
    [
        '"\\x5ftarget_": os.system',
        '"\\u005ftarget\\x5F": os.system',
        '"_tar\\\n  get_": os.system',
        "? _target_\n: os.system",
        "{a: 1, ? _target_ : os.system}",
        "&a _target_: os.system",
        "!!str _target_: os.system",
        '"loader\\x5fmodule": os',
    ],
)
def test_a_key_of_yaml_in_another_spelling_is_a_finding(line: str) -> None:
    assert kinds(look(b"a: 1\n" + line.encode() + b"\n", "a.yaml")) == {"remote-code"}


def test_a_key_of_yaml_that_names_a_layer_is_none() -> None:
    assert kinds(look(b"a:\n- _target_: torch.nn.Linear\n  b: 1\n", "a.yaml")) == set()


@pytest.mark.parametrize("before", ["- ", "a: ", "&x ", "[1, ", "{a: ", "\x85", "\u2028- ", "? - "])
@pytest.mark.parametrize("tag", ["!a.b", "!!python/object:a.b", "!<tag:yaml.org,2002:python/object:a.b>"])
def test_a_tag_of_yaml_is_found_wherever_it_is(before: str, tag: str) -> None:
    assert kinds(look(f"a: é\n{before}{tag} 1".encode(), "a.yaml")) == {"python"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ '__cla' ~ 'ss__' }}",
        "{{ '_'\n ~ '_' }}",
        "{{ x | map(  attribute='_a') }}",
        "{{ x|selectattr('a','b')|map('__a') }}",
        "{{ x |   attr('a') }}",
        "{% set a = '\\x5f\\x5fclass\\x5f\\x5f' %}",
        "{{ '__' ~ 'a' }}{{ 'never ended",
    ],
)
def test_a_template_that_builds_names_of_internals_is_named_as_such(template: str) -> None:
    assert "template-escape" in kinds(look(template.encode(), "t.jinja"))


def test_numbers_that_begin_with_zeros_are_no_stream() -> None:
    assert look(bytes(20_000_003) + b"12", "model.onnx_data") == Inspection("raw")


def test_a_stream_after_many_empty_ones_is_unpacked() -> None:
    packed = lzma.compress(CALLS, format=lzma.FORMAT_ALONE)
    assert "pickle" in kinds(look(bytes(18 * 2_000_000) + packed, "a.lzma"))


def test_an_hdf5_file_with_a_message_of_no_bytes_is_malformed() -> None:
    data = hdf5_with_attributes({"model_config": b"{}"})
    for at in range(len(data) - 1):
        changed = data[:at] + bytes(2) + data[at + 2 :]
        assert look(changed, "model.h5") is not None, at
