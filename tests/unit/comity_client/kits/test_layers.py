"""Layers of images: the same bytes for the same files, and hostile packages and wheels refused in words."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity_client.kits import layers
from comity_client.kits.layers import Entry, Layer, LayerFile
from support.debs import PROGRAM, deb_of, make_deb, member, tar_of
from support.kit_recipes import make_wheel


def entry(data: bytes, mode: int = 0o644) -> LayerFile:
    return LayerFile(len(data), mode, lambda: io.BytesIO(data))


def written(layer: Layer) -> bytes:
    target = io.BytesIO()
    layer.write(target)
    return target.getvalue()


def names(data: bytes) -> dict[str, tuple[int, str, bytes]]:
    """Mode, target and bytes of each member, by path; all belong to root and have no time."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        listed = archive.getmembers()
        assert {(each.uid, each.gid, each.mtime, each.uname, each.gname) for each in listed} == {(0, 0, 0, "", "")}
        read = {each.name: archive.extractfile(each) for each in listed if each.isreg()}
        return {
            each.name: (each.mode, each.linkname, file.read() if (file := read.get(each.name)) else b"")
            for each in listed
        }


def layer_of_package(deb: Path, *omitted: str) -> bytes:
    with ExitStack() as opened:
        layer = Layer(opened)
        layer.add_package(deb, omitted)
        return written(layer)


def test_the_bytes_of_a_layer_depend_on_its_files_alone() -> None:
    files: dict[str, Entry] = {
        "b": entry(b"2"),
        "a/é": entry(b"1", 0o755),
        "a/l": "é",
        f"a/{'x' * 180}": entry(b""),
        "c/d": None,
    }
    with ExitStack() as opened:
        first, second = Layer(opened), Layer(opened)
        for path, each in files.items():
            first.add(path, each)
        for path, each in reversed(files.items()):
            second.add(path, each)
        data = written(first)
        assert data == written(second) == written(first)
    assert list(names(data)) == ["a", "a/l", f"a/{'x' * 180}", "a/é", "b", "c", "c/d"]
    assert sha256(data) == "cbc7996ea118530ddca8bc376d866c544b10aecaed2e04184c954de7130e17da"


def test_a_package_is_unpacked_without_what_is_omitted(tmp_path: Path) -> None:
    files = {**PROGRAM, "lib64/ld.so": b"loader", "usr/share/man/man1/x": b"page"}
    found = names(layer_of_package(make_deb(tmp_path, files), "usr/share/man"))
    assert found["usr/bin/python3.12"] == (0o755, "", b"#!python")
    assert found["usr/lib64/ld.so"] == (0o644, "", b"loader")
    assert not [path for path in found if path.startswith("usr/share/man")]
    assert found["usr"] == (0o755, "", b"")


def test_links_of_a_package_stay_links(tmp_path: Path) -> None:
    deb = tmp_path / "a.deb"
    archive = tar_of([(member("usr/a", tarfile.SYMTYPE, "/etc/a"), b""), (member("etc/", tarfile.DIRTYPE), b"")])
    for data, name in ((archive, "data.tar"), (gzip.compress(archive), "data.tar.gz/")):
        deb.write_bytes(deb_of(data, name))
        assert names(layer_of_package(deb)) == {
            "etc": (0o755, "", b""), "usr": (0o755, "", b""), "usr/a": (0o777, "/etc/a", b""),
        }  # fmt: skip


LONG = member("a", tarfile.XHDTYPE)
PACKED = lzma.compress(tar_of([(member("a"), b"data")]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK", "no package of Debian"),
        (deb_of(b"")[:50], "it has none of"),
        (deb_of(b"", "data.tar.zst"), "it has none of data.tar, data.tar.gz, data.tar.xz"),
        (deb_of(b"").replace(b"`\n", b"xx"), "its archive is damaged"),
        (deb_of(PACKED[:-20]), "cannot be read"),
        (deb_of(b"not xz"), "cannot be read"),
        (deb_of(b"\xff" * 512, "data.tar"), "cannot be read"),
        (deb_of(tar_of([(member("a", tarfile.CHRTYPE), b"")]), "data.tar"), "neither a file nor a folder"),
        (deb_of(tar_of([(member("a", tarfile.LNKTYPE, "b"), b"")]), "data.tar"), "neither a file nor a folder"),
        (deb_of(tar_of([(member("../a"), b"")]), "data.tar"), "'..'"),
        (deb_of(tar_of([(member("a", tarfile.SYMTYPE, "/etc"), b""), (member("a/b"), b"")]), "data.tar"), "no folder"),
        (deb_of(tar_of([(member("a"), b"1"), (member("a"), b"2")]), "data.tar"), "two parts of it have a"),
        (deb_of(tar_of([(LONG, b"x" * 70_000)]), "data.tar"), "name that is too long"),
    ],
)
def test_a_hostile_or_damaged_package_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    deb = tmp_path / "a.deb"
    deb.write_bytes(data)
    with pytest.raises(Malformed, match=why) as refused:
        layer_of_package(deb)
    assert refused.value.code in ("KIT-IMAGE", "BAD-PATH")


def test_a_package_or_layer_beyond_its_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = make_deb(tmp_path, {"a": bytes(2_000), "b": b""})
    monkeypatch.setattr(layers, "MAX_LAYER", 1_999)
    with pytest.raises(Malformed, match="1999 bytes"):
        layer_of_package(deb)
    monkeypatch.setattr(layers, "MAX_ENTRIES", 1)
    with pytest.raises(Malformed, match="at most 1 files"):
        layer_of_package(deb)
    monkeypatch.setattr(layers, "MAX_PACKAGE", 10_000)
    with pytest.raises(Malformed, match="more than 10000 bytes"):
        layer_of_package(deb)


def test_the_same_file_of_two_packages_is_one(tmp_path: Path) -> None:
    with ExitStack() as opened:
        layer = Layer(opened)
        for name in ("one", "two"):
            layer.add_package(make_deb(tmp_path, {"usr/same": b"same", f"usr/{name}": b""}, name), ())
        assert set(names(written(layer))) == {"usr", "usr/same", "usr/one", "usr/two"}


def test_modules_of_a_wheel_are_where_they_are_imported_from(tmp_path: Path) -> None:
    more = {"tiny_engine-1.0.data/platlib/fast.so": "elf", "tiny_engine-1.0.data/scripts/run": "#!python"}
    wheel = make_wheel(tmp_path, more=more)
    with ExitStack() as opened:
        layer = Layer(opened)
        layer.add_wheel(wheel, "site")
        found = names(written(layer))
    assert {"site/tiny_engine.py", "site/fast.so", "site/tiny_engine-1.0.dist-info/METADATA"} <= found.keys()
    assert not [path for path in found if "run" in path]


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, more={"big.py": "data " * 100})
    wheel.write_bytes(wheel.read_bytes().replace(b"data data", b"date date", 1))
    with ExitStack() as opened:
        layer = Layer(opened)
        layer.add_wheel(wheel, "site")
        with pytest.raises(Malformed, match=r"site/big.py cannot be read: Bad CRC"):
            written(layer)
        wheel.write_bytes(b"PK")
        with pytest.raises(Malformed, match="cannot be read"):
            layer.add_wheel(wheel, "site")


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"long")
    with ExitStack() as opened:
        layer = Layer(opened)
        layer.add_file("file", file)
        file.write_bytes(b"")
        with pytest.raises(Malformed, match="shorter"):
            written(layer)
