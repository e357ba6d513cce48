"""Images and audio are stepped over to the end that their parts state."""

from __future__ import annotations

import io
import struct

import pytest
from comity.formats.inspect import inspect
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

PNG = b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IEND" + bytes(4)
WAV = b"RIFF" + struct.pack("<L", 4 + 8 + 16 + 8 + 4) + b"WAVE" + b"fmt " + struct.pack("<L", 16) + bytes(16)
WAV += b"data" + struct.pack("<L", 4) + bytes(4)
FLAC = b"fLaC" + b"\0\0\0\x22" + bytes(34) + b"\x81\0\0\x04" + bytes(4) + b"\xff\xf8" + bytes(40)
OGG = (b"OggS" + bytes(22) + b"\x02" + b"\x05\x06" + bytes(11)) * 2
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(10) + b"\xff\xff\xda\0\x08" + bytes(20) + b"\xff\xd9"
SAMPLES = {"a.png": PNG, "a.wav": WAV, "a.flac": FLAC, "a.ogg": OGG, "a.jpg": JPEG}


def problems(data: bytes, path: str) -> tuple[str, ...]:
    found = inspect(io.BytesIO(data), path, len(data))
    return (*found.active, *found.malformed)


@pytest.mark.parametrize("path", SAMPLES)
def test_a_sound_file_is_clean(path: str) -> None:
    assert problems(SAMPLES[path], path) == ()


@pytest.mark.parametrize("path", ["a.png", "a.wav", "a.ogg"])
def test_what_follows_the_end_is_a_finding(path: str) -> None:
    assert problems(SAMPLES[path] + bytes(40), path) == ("40 bytes after its end",)


@pytest.mark.parametrize(
    ("path", "cut", "problem"),
    [
        ("a.png", 12, "png: it has no end"),
        ("a.wav", 4, "riff: it has no end"),
        ("a.flac", 45, "flac: it has no end"),
        ("a.ogg", 1, "ogg: it has no end"),
        ("a.jpg", 31, "outside the file"),
    ],
)
def test_a_file_that_was_cut_is_a_finding(path: str, cut: int, problem: str) -> None:
    assert any(problem in text for text in problems(SAMPLES[path][:-cut], path))


def test_parts_that_are_none_are_findings() -> None:
    assert problems(JPEG[:20] + bytes(30), "a.jpg") == ("jpeg: a segment without a mark",)
    assert problems(FLAC.replace(b"\xff\xf8", bytes(2)), "a.flac") == ("flac: no frame after its metadata",)


def test_more_parts_than_the_limit_are_not_stepped_over() -> None:
    assert problems((b"OggS" + bytes(23)) * 100_001, "a.ogg") == ("not-inspected: more than 100000 parts",)


@given(path=st.sampled_from(sorted(SAMPLES)), data=st.data())
@settings(max_examples=examples(60))
def test_a_file_that_was_changed_is_answered(path: str, data: st.DataObject) -> None:
    whole = bytearray(SAMPLES[path])
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    problems(bytes(whole), path)
