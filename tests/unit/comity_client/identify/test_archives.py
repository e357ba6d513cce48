"""The files in archives are hashed within bounds, and whatever else is in an archive is said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity_client.identify import archives
from comity_client.identify.archives import ArchivedFile, ArchivedFiles, archived_files, is_archive
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

FILES = {"m/config.json": b"{}", "m/model.bin": b"weights" * 100_000, "empty": b""}


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.mkdir("m")
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def tarred(files: Mapping[str, bytes], *more: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return made.getvalue()


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def held(data: bytes, folder: Path) -> ArchivedFiles:
    (folder / "archive").write_bytes(data)
    with (folder / "archive").open("rb", buffering=0) as file:
        return archived_files(file, len(data))


def whole(files: Mapping[str, bytes]) -> ArchivedFiles:
    return ArchivedFiles(tuple(ArchivedFile(name, len(data), sha256(data)) for name, data in files.items()))


PACKINGS: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, bz2.compress, lzma.compress)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_the_files_in_a_tar_are_hashed(tmp_path: Path, packing: Callable[[bytes], bytes], form: int) -> None:
    files = {**FILES, f"{'long/' * 50}ü": b"x", "one-block": bytes(512)}
    assert held(packing(tarred(files, special("m", tarfile.DIRTYPE), form=form)), tmp_path) == whole(files)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_files_in_a_zip_are_hashed(tmp_path: Path, method: int) -> None:
    assert held(zipped(FILES, method), tmp_path) == whole(FILES)


def test_several_streams_in_a_row_are_one_archive(tmp_path: Path) -> None:
    data = tarred(FILES)
    packed = gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(100)
    assert held(packed, tmp_path) == whole(FILES)


def test_links_devices_and_names_outside_are_lines(tmp_path: Path) -> None:
    data = tarred(
        {"ok": b"x", "../up": b"y"},
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "ok"),
        special("null", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    )
    found = held(data, tmp_path)
    assert {each.name: each.problem for each in found.files} == {
        "ok": "",
        "../up": "an unpacker could write it outside its folder",
        "link": "a link to /etc/passwd",
        "hard": "a link to ok",
        "null": "no file: a device or a pipe",
        "pipe": "no file: a device or a pipe",
    }
    assert [each.sha256 is None for each in found.files] == [False, True, True, True, True, True]
    assert "outside" in held(zipped({"../up": b"y"}), tmp_path).problem


@pytest.mark.parametrize("packing", PACKINGS[1:])
def test_a_small_archive_of_zeros_is_not_unpacked_without_end(
    tmp_path: Path, packing: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SMALL", 1_000_000)
    zeros = {"ok": b"x", "zeros": bytes(5_000_000)}
    for data in (packing(tarred(zeros)), zipped(zeros)):
        found = held(data, tmp_path)
        assert found == ArchivedFiles(
            (ArchivedFile("ok", 1, sha256(b"x")),), "it unpacks to more than 100 times its size"
        )


def test_what_is_passed_over_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1_000_000)
    skipped = special("link", tarfile.SYMTYPE, "x").tobuf()
    data = gzip.compress(tarred({"../zeros": bytes(5_000_000)}) + skipped)
    assert "100 times" in held(data, tmp_path).problem


def test_an_archive_that_is_cut_or_damaged_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    for data in (tarred(FILES), gzip.compress(tarred(FILES))):
        found = held(data[: len(data) // 2], tmp_path)
        assert found.problem and len(found.files) < len(FILES)
    assert held(zipped(FILES)[:-30], tmp_path).problem
    odd = bytearray(zipped(FILES))
    odd[odd.index(b"m/model.bin") + 20] ^= 0xFF
    found = held(bytes(odd), tmp_path)
    assert [bool(each.problem) for each in found.files] == [False, True, False]
    assert held(tarred(FILES) + b"more", tmp_path).problem == "more follows after its end"
    assert held(b"\x28\xb5\x2f\xfd" + bytes(100), tmp_path).problem == "its compression cannot be read here"


def test_a_chain_of_heads_about_heads_is_refused(tmp_path: Path) -> None:
    name = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    name.size = 2
    chain = (name.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")) * 3_000
    assert "cannot be read" in held(chain + tarred({"x": b"y"}), tmp_path).problem
    name.size = 10**9
    assert "bytes" in held(name.tobuf(tarfile.GNU_FORMAT) + bytes(512), tmp_path).problem


def test_a_zip_that_can_be_read_in_two_ways_is_said_to_be_so(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a", b"one")
        archive.writestr("a", b"two")
    found = held(b"before" + made.getvalue(), tmp_path)
    assert [each.sha256 for each in found.files] == [sha256(b"one"), sha256(b"two")]
    assert "duplicate" in found.problem and "precede" in found.problem


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("A.ZIP", True),
        ("a-1-py3-none-any.whl", True),
        ("a.tar.gz", True),
        ("a.tgz", True),
        ("model.pt", False),
        ("a.gz", False),
    ],
)
def test_only_files_whose_names_say_so_are_opened(name: str, expected: bool) -> None:
    assert is_archive(name) == expected


def test_what_is_kept_is_read_back() -> None:
    found = ArchivedFiles(
        (ArchivedFile("a\udcff\n", 3, sha256(b"x")), ArchivedFile("b", 0, None, "a link to c")), "problem"
    )
    assert ArchivedFiles.parse(found.encode()) == found


@given(data=st.data())
@settings(max_examples=examples(100))
def test_changed_bytes_end_in_an_answer(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = data.draw(st.sampled_from([zipped({"a": b"x" * 50}), tarred({"a": b"x" * 50}), gzip.compress(tarred({}))]))
    odd = bytearray(made)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(odd) - 1), st.integers(0, 255)), max_size=4)):
        odd[place] = value
    found = held(bytes(odd), tmp_path_factory.getbasetemp())
    assert all((each.sha256 is None) == bool(each.problem) for each in found.files)
