"""Small packages of Debian and bases of images, made here: the same bytes for the same arguments."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from comity.trust.encoding import sha256

PROGRAM = {"usr/bin/python3.12": b"#!python", "usr/share/doc/tiny-python/copyright": b"PSF, in words"}


def tar_of(members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(path: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"./{path}")
    info.type, info.linkname, info.mode, info.mtime, info.uid = kind, target, mode, 1_700_000_000, 1000
    return info


def deb_of(data: bytes, name: str = "data.tar.xz") -> bytes:
    """A package with this archive of its files."""
    parts = {"debian-binary": b"2.0\n", "control.tar": b"odd", name: data}
    head = "{:<16}0           0     0     100644  {:<10}`\n"
    padded = (head.format(path, len(each)).encode() + each + b"\n" * (len(each) % 2) for path, each in parts.items())
    return b"!<arch>\n" + b"".join(padded)


def make_deb(folder: Path, files: Mapping[str, bytes], name: str = "tiny-python") -> Path:
    """A package with files; those in a folder `bin` can be executed."""
    listed = [(member(path, mode=0o755 if "bin/" in path else 0o644), data) for path, data in files.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_1.0_amd64.deb"
    path.write_bytes(deb_of(lzma.compress(tar_of(listed))))
    return path


def base_text(*debs: Path, layer: str = "0" * 64, python: str = "3.12", more: str = "") -> str:
    """The text of `image.toml` for these packages."""
    packages = ", ".join(
        f'{{ name = "{deb.name.split("_")[0]}", version = "1:1.0+b1", sha256 = "{sha256(deb.read_bytes())}" }}'
        for deb in debs
    )
    return (
        f'schema = "comity/kit-image/v1"\narch = "x86_64"\npython = "{python}"\nprogram = "/usr/bin/python{python}"\n'
        f'site = "usr/lib/site"\nlayer = "{layer}"\npackages = [{packages}]\n{more}'
    )
