"""Small wheels, made here, that real installers take."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

TIME = (1980, 1, 1, 0, 0, 0)


def write_wheel(
    folder: Path, name: str, version: str = "1.0", *, needs: tuple[str, ...] = (), data: bytes = b""
) -> Path:
    """Write a wheel with one module `name` whose `WHO` is `name` and version, and `data` in a file beside it; `needs`
    are its requirements. The same bytes for the same arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    requirements = "".join(f"Requires-Dist: {each}\n" for each in needs)
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirements}"
    files = {
        f"{name}.py": f"WHO = '{name} {version}'\n".encode(),
        f"{name}.bin": data,
        f"{info}/METADATA": about.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{inside},sha256={_hash(content)},{len(content)}" for inside, content in files.items()]
    files[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(zipfile.ZipInfo(inside, TIME), content)
    return path


def lock_line(wheel: Path) -> str:
    """The line of a lock file for pip's `--require-hashes`."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
