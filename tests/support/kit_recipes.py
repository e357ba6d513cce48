"""Small wheels and recipes of kits for tests. The wheels are real ones: pip installs them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from comity.trust.encoding import sha256
from support.kits import some_cases

WEIGHTS: Final = b"some weights"
KIT_TOML: Final = f"""\
schema = "comity/kit-recipe/v1"
name = "tiny-chat"
service = "chat"
python = ["3.11", "3.12"]
arch = "x86_64"
licence = "Apache-2.0"
[engine]
name = "tiny-engine"
command = ["{{python}}", "{{kit}}/engine/serve.py", "--port", "{{port}}"]
ready = "/health"
ready_seconds = 30
[needs]
memory = 1_000_000
disk = 1_000_000
[[weights]]
name = "swiss-ai/tiny@v1"
licence = "Apache-2.0"
licence_text = "LICENSE"
files = [{{ original = "tiny.gguf", sha256 = "{sha256(WEIGHTS)}" }}]
"""


def make_wheel(
    folder: Path,
    name: str = "tiny_engine",
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    requires: Iterable[str] = (),
    metadata: str = "License-Expression: MIT\n",
    texts: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A wheel with an empty module, its metadata and, by default, a licence text. The same arguments give the same
    bytes."""
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": head + "".join(f"Requires-Dist: {each}\n" for each in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **({f"{info}/licenses/LICENSE": "MIT, in words"} if texts is None else texts),
        **(more or {}),
    }
    record = "".join(f"{path},sha256={_hash(text)},{len(text.encode())}\n" for path, text in files.items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(inner), text, compression)
    return path


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def lock_line(*wheels: Path) -> str:
    """The line of a lock for wheels of one distribution."""
    name, version = wheels[0].name.split("-")[:2]
    return f"{name}=={version} " + " ".join(f"--hash=sha256:{sha256(wheel.read_bytes())}" for wheel in wheels) + "\n"


def make_recipe(folder: Path, *wheels: Path, toml: str = KIT_TOML) -> Path:
    """A recipe whose weights are in the folder `weights-of-it` beside it."""
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "serve.py").write_text("print('serving')\n")
    (folder / "kit.toml").write_text(toml)
    (folder / "requirements.lock").write_text("".join(map(lock_line, wheels)))
    (folder / "selftest.json").write_bytes(b" " + some_cases().encode() + b"\n")
    weights = folder.parent / "weights-of-it"
    weights.mkdir(exist_ok=True)
    (weights / "tiny.gguf").write_bytes(WEIGHTS)
    (weights / "LICENSE").write_text("Apache-2.0, in words")
    return folder
