"""Layers that are archives: what is read of them, and the archives that are refused before they cost anything."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, OutOfSpace
from comity.upstream import packed_layers
from comity.upstream.listed_files import ListedFile, Observation
from comity.upstream.packed_layers import (
    MARGIN,
    MAX_HEADER,
    TAR,
    TAR_GZIP,
    GzipStream,
    TarStream,
    packing_of,
    parse_pax,
    remove_unpacked,
    unpack_layers,
)
from hypothesis import given
from hypothesis import strategies as st
from support.tar_archives import END, archive, gzipped, member, pax

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
LONG = "folder/" * 40 + "weights.bin"
NAMES = st.lists(st.sampled_from("ab.éλ-_ "), min_size=1, max_size=120).map("".join)


def read(data: bytes, most: int = MARGIN) -> list[tuple[str, bytes]]:
    stream = TarStream(io.BytesIO(data), most, lambda: None)
    return [(file.path, b"".join(content)) for file, content in stream.files()]


def refusal(data: bytes, most: int = MARGIN) -> Malformed:
    with pytest.raises(Malformed) as caught:
        read(data, most)
    return caught.value


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_form_are_read(form: int) -> None:
    files = {"a": b"", "config.json": b"{}\n", "sub/w.bin": b"w" * 5000, "é": b"e"}
    if form != tarfile.USTAR_FORMAT:
        files[LONG] = b"long"
    folders = ["./", "sub/", "empty"]
    assert read(archive(files, form, folders)) == list(files.items())


@given(st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.binary(max_size=1500), max_size=5))
def test_what_is_packed_is_read_again(files: dict[str, bytes]) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert read(archive(files, form)) == list(files.items())


@given(st.binary(max_size=40), st.integers(0, 3 * 512), st.integers(0, 3 * 512))
def test_a_changed_archive_is_read_or_refused(noise: bytes, where: int, cut: int) -> None:
    whole = archive({"a": b"1" * 600, LONG: b"2"})
    changed = whole[:where] + noise + whole[where + len(noise) :]
    for data in (changed, changed[: len(changed) - cut], noise):
        try:
            read(data)
        except Malformed as refused:
            assert refused.code in ("UPSTREAM-PACKED", "BAD-PATH")


def test_a_leading_dot_segment_is_no_part_of_a_name() -> None:
    assert read(member("./config.json", b"{}") + END) == [("config.json", b"{}")]


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a", "a/../b", "a//b", "a\\b", "a\nb", ".git/config", "././a", "a/", "n" * 1025, "\udc80"],
)
def test_a_name_that_no_artifact_may_have_is_refused(name: str) -> None:
    assert refusal(member(name) + END).code == "BAD-PATH"


def test_the_name_of_a_folder_is_checked_too() -> None:
    for name in ("../out/", "/out", ".git/hooks"):
        assert refusal(member(name, kind=tarfile.DIRTYPE) + END).code == "BAD-PATH"


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.GNUTYPE_SPARSE,
        tarfile.SOLARIS_XHDTYPE,
        b"V",
    ],
)
def test_what_is_neither_file_nor_folder_is_refused(kind: bytes) -> None:
    assert refusal(member("a", b"", kind, link="b") + END).code == "UPSTREAM-PACKED"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(100),
        member("a", b"1"),
        member("a", b"1" * 600)[:900],
        member("a", b"1", size=2000) + END,
        member("a") + END + member("b") + END,
        member("a") + END + b"x",
        member("folder", kind=tarfile.DIRTYPE, size=512) + bytes(512) + END,
        pax(("path", "a")) + END,
        pax(("path", "a")) + pax(("path", "b")) + member("c") + END,
        member("././@LongLink", b"a\0", tarfile.GNUTYPE_LONGNAME) + END,
        member("././@LongLink", b"a\0", tarfile.GNUTYPE_LONGNAME) * 2 + member("c") + END,
        member("././@LongLink", b"a\0", tarfile.GNUTYPE_LONGNAME) + pax(("path", "b")) + member("c") + END,
        pax(("path", "a"), kind=tarfile.XGLTYPE) + member("c") + END,
        pax(("size", "1"), kind=tarfile.XGLTYPE) + member("c") + END,
        pax(("GNU.sparse.major", "1")) + member("c") + END,
        pax(("hdrcharset", "BINARY")) + member("c") + END,
        pax(("size", "-1")) + member("c") + END,
        pax(("size", "9" * 17)) + member("c") + END,
        pax(("comment", "c" * MAX_HEADER)) + member("c") + END,
        member("pax", b"7 path=a", tarfile.XHDTYPE) + member("c") + END,
        member("pax", b"0 path=a\n", tarfile.XHDTYPE) + member("c") + END,
        member("pax", b"10 pathaaa\n", tarfile.XHDTYPE) + member("c") + END,
        member("pax", b"", tarfile.XHDTYPE, size=2**40) + END,
    ],
)
def test_a_broken_or_ambiguous_archive_is_refused(data: bytes) -> None:
    assert refusal(data).code == "UPSTREAM-PACKED"


def test_records_that_say_nothing_of_name_or_size_are_ignored() -> None:
    known = pax(("comment", "c"), kind=tarfile.XGLTYPE) + pax(
        ("mtime", "1.5"), ("path", "b"), ("SCHILY.xattr.user.a", "v")
    )
    assert read(known + member("a", b"1") + END) == [("b", b"1")]
    assert read(pax(("size", "3")) + member("a", b"123", size=3) + END) == [("a", b"123")]


@given(st.binary(max_size=60) | st.text("0123456789 =path\n", max_size=40).map(str.encode))
def test_any_records_are_read_or_refused(data: bytes) -> None:
    try:
        parse_pax(data)
    except Malformed as refused:
        assert refused.code == "UPSTREAM-PACKED"


def test_a_file_that_cannot_be_in_the_layer_is_refused_before_it_is_read() -> None:
    assert refusal(member("a", size=10**13), most=4096).code == "UPSTREAM-PACKED"


def test_the_headers_of_an_archive_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_layers, "MAX_HEADERS", 4)
    assert len(read(member("a") + member("b") + member("c") + END)) == 3
    assert refusal(member("a") + member("b") + member("c") + member("d") + END).code == "UPSTREAM-PACKED"


@pytest.mark.parametrize("media_type", ["application/vnd.cncf.model.weight.v1.raw", "application/json", "text/plain"])
def test_a_file_by_itself_is_not_packed(media_type: str) -> None:
    assert packing_of(media_type) == ""


def test_a_way_of_packing_that_is_not_read_is_named() -> None:
    with pytest.raises(Malformed) as caught:
        packing_of("application/vnd.kitops.modelkit.model.v1.tar+zstd")
    assert (caught.value.code, "tar+zstd" in str(caught.value)) == ("UPSTREAM-PACKED", True)


def inflated(data: bytes) -> bytes:
    stream, parts = GzipStream(io.BytesIO(data)), list[bytes]()
    while part := stream.read(1000):
        parts.append(part)
    return b"".join(parts)


@given(st.binary(max_size=5000))
def test_gzip_is_read_as_it_was_written(data: bytes) -> None:
    assert inflated(gzipped(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain",
        gzipped(b"a" * 5000)[:-1],
        gzipped(b"a") + b"more",
        gzipped(b"a") + gzipped(b"b"),
        gzipped(b"a")[:-8] + bytes(8),
        zlib.compress(b"a"),
    ],
)
def test_what_is_not_one_gzip_member_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        inflated(data)
    assert caught.value.code == "UPSTREAM-PACKED"


class Steps:
    """Ends the work after so many steps."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.left = most

    def progress(self, path: str, count: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise CancelledError


def layer_at(path: Path, data: bytes, packing: str = TAR) -> Observation:
    path.write_bytes(data)
    digest = Digest(hashlib.sha256(data).hexdigest())
    listed = ListedFile(f"layer-{path.name}" if packing else path.name, len(data), "", digest, packing=packing)
    return Observation(FileEntry(listed.path, len(data), digest), listed, "sha256", False)


def unpacked(
    folder: Path, layers: Sequence[tuple[bytes, str]], space: int = 10**9, steps: int = 1_000_000
) -> dict[str, bytes]:
    paths = [folder / f"{number:06d}" for number in range(len(layers))]
    seen = [layer_at(path, *layer) for path, layer in zip(paths, layers, strict=True)]
    found, where = unpack_layers(seen, paths, space, Steps(steps))
    for item, path in zip(found, where, strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == item.entry.sha256
        assert item.match == ("none" if item.listed.lfs is None else "sha256")
    return {item.entry.path: path.read_bytes() for item, path in zip(found, where, strict=True)}


FIRST, SECOND = {"b/w.bin": b"w" * 3000, "c": b"c"}, {"a": b"a"}


def test_layers_are_replaced_by_their_files_in_the_order_of_a_manifest(tmp_path: Path) -> None:
    found = unpacked(tmp_path, [(gzipped(archive(FIRST)), TAR_GZIP), (archive(SECOND), TAR), (b"raw", "")])
    assert found == {"000002": b"raw", **SECOND, **FIRST}
    assert list(found) == sorted(found)


def test_unpacking_that_was_interrupted_starts_again(tmp_path: Path) -> None:
    layers = [(archive({"x": b"1" * 3000, **FIRST}), TAR)]
    with pytest.raises(CancelledError):
        unpacked(tmp_path, layers, steps=5)
    assert (tmp_path / "000000.000000").exists()
    remove_unpacked(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]
    assert unpacked(tmp_path, layers) == {**FIRST, "x": b"1" * 3000}


@pytest.mark.parametrize(
    ("layers", "code"),
    [
        ([(archive(FIRST), TAR), (archive({"c": b"2"}), TAR)], "UPSTREAM-PACKED"),
        ([(member("a") + member("a") + END, TAR)], "UPSTREAM-PACKED"),
        ([(archive({"000001": b""}), TAR), (b"raw", "")], "UPSTREAM-PACKED"),
        ([(archive({"a": b"", "A": b""}), TAR)], "BAD-PATH"),
        ([(archive({"a": b"", "a/b": b""}), TAR)], "BAD-PATH"),
        ([(archive({}), TAR)], "UPSTREAM-PACKED"),
        ([(archive(FIRST), TAR_GZIP)], "UPSTREAM-PACKED"),
        ([(gzipped(archive(FIRST)), TAR)], "UPSTREAM-PACKED"),
    ],
)
def test_an_image_whose_files_do_not_fit_together_is_refused(
    tmp_path: Path, layers: list[tuple[bytes, str]], code: str
) -> None:
    with pytest.raises(ComityError) as caught:
        unpacked(tmp_path, layers)
    assert caught.value.code == code


def test_files_of_all_layers_share_one_space(tmp_path: Path) -> None:
    layers = [(archive(FIRST), TAR), (archive(SECOND), TAR)]
    assert len(unpacked(tmp_path, layers, space=3002)) == 3
    with pytest.raises(OutOfSpace):
        unpacked(tmp_path, layers, space=3001)


def test_a_layer_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_layers, "MARGIN", 4096)
    bomb = gzipped(archive({"a": bytes(3_000_000)}))
    assert len(bomb) * 100 < 3_000_000
    with pytest.raises(Malformed) as caught:
        unpacked(tmp_path, [(bomb, TAR_GZIP)])
    assert caught.value.code == "UPSTREAM-PACKED"
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]
    tail = gzipped(archive({"a": b""}) + bytes(3_000_000))
    with pytest.raises(Malformed):
        unpacked(tmp_path, [(tail, TAR_GZIP)])
