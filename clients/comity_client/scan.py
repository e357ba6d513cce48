"""Inspect the files of a folder: format, active content, and what the policy refuses. Nothing is loaded.

With the extra [scan], picklescan lists the imports of pickles. It reads opcodes and runs none, but inflates its input,
so it runs in a child process with bounded memory and time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from comity.content.durable import disk_errors
from comity.formats.inspect import inspect
from comity.trust.encoding import Json
from comity.trust.errors import NotFound, Unavailable
from comity.trust.evidence import FoundFile, Inspection
from comity.trust.frozen import frozen
from comity.trust.policy import SafetyRule
from comity.trust.rows.content import refused_content
from comity.verifier import hash_file, inspect_folder

_NO_PICKLES = frozenset({"safetensors", "gguf", "json", "text", "empty", "image", "audio", "onnx", "sentencepiece"})


@frozen
class Scanned:
    """A file, its inspection (None if it is not a regular file of the folder), and what the policy refuses about it."""

    file: FoundFile
    refused: tuple[str, ...]

    @property
    def seen(self) -> Inspection:
        return self.file.inspection or Inspection(self.file.kind)

    @property
    def may_hold_pickles(self) -> bool:
        """Whether picklescan should read the file; formats that cannot contain a pickle are left out."""
        return self.file.kind == "file" and self.seen.format not in _NO_PICKLES

    def to_json(self) -> dict[str, Json]:
        return {
            "path": self.file.path,
            "size": self.file.size,
            "format": self.seen.format,
            "active": list(self.seen.active),
            "malformed": list(self.seen.malformed),
            "refused": list(self.refused),
        }


@frozen
class FolderScan:
    """All files of a folder, by path."""

    folder: Path
    files: tuple[Scanned, ...]

    @property
    def formats(self) -> Mapping[str, int]:
        return dict(sorted(Counter(each.seen.format for each in self.files).items()))

    @property
    def refused(self) -> tuple[Scanned, ...]:
        return tuple(each for each in self.files if each.refused)

    @property
    def notable(self) -> tuple[Scanned, ...]:
        """Files with active, malformed or refused content, and special files."""
        return tuple(e for e in self.files if e.seen.active or e.seen.malformed or e.refused or e.file.kind != "file")


def scan_folder(folder: Path, rule: SafetyRule, *, workers: int) -> FolderScan:
    """Inspect every file of `folder` except its evidence pack. Nothing is hashed, so rules by digest do not apply.
    Raises NotFound, Unavailable, Malformed as `verifier.collect_evidence` does."""
    files = inspect_folder(folder, workers=workers)
    return FolderScan(folder, tuple(Scanned(file, _refused(rule, file)) for file in files))


def refusals(files: Mapping[str, Path], rule: SafetyRule) -> Iterator[tuple[str, str]]:
    """The paths of files that `rule` refuses, each with the first reason; `files` has their places on this disk.
    Raises Unavailable if one cannot be read."""
    for path, place in files.items():
        with disk_errors(f"{place} was not inspected"), place.open("rb", buffering=0) as file:
            seen = inspect(file, path, place.stat().st_size)
        for text in refused_content(rule, FoundFile(path, 0, None, inspection=seen)):
            yield path, text
            break


def allow_line(scan: FolderScan) -> str:
    """The line of a policy that accepts the refused files of a scan by their digests, of at most `MAX_ALLOWED` files;
    empty if there is none. Raises Unavailable if one cannot be read."""
    paths = [each.file.path for each in scan.refused if each.file.kind == "file"][:MAX_ALLOWED]
    if not paths:
        return ""
    digests = []
    for path in paths:
        with disk_errors(f"{path} was not hashed"):
            digests.append(f'"sha256:{hash_file(scan.folder / path, lambda count: None)[1]}"')
    return f"[safety] allow = [{', '.join(digests)}]"


MAX_ALLOWED: Final = 8
"""Files that `allow_line` hashes."""


def _refused(rule: SafetyRule, file: FoundFile) -> tuple[str, ...]:
    if file.kind != "file":
        return (f"a {'link out of the folder' if file.kind == 'link' else 'special file'}, which is not read",)
    return tuple(refused_content(rule, file))


TOOL: Final = "picklescan"
SECONDS: Final = 300
MAX_ANSWER: Final = 16 * 1024 * 1024


@frozen
class Import:
    """A name that a pickle imports, and its level: innocuous, suspicious or dangerous."""

    module: str
    name: str
    level: str


@frozen
class PickleFindings:
    """Findings of picklescan for one file; `failed` if it could not read all of the file."""

    path: str
    imports: tuple[Import, ...]
    failed: str = ""

    @property
    def dangerous(self) -> tuple[Import, ...]:
        return tuple(item for item in self.imports if item.level != "innocuous")

    def to_json(self) -> dict[str, Json]:
        imports = [{"module": item.module, "name": item.name, "level": item.level} for item in self.imports]
        return {"path": self.path, "imports": imports, "failed": self.failed}


@frozen
class PickleScan:
    """Findings of one version of picklescan."""

    version: str
    files: tuple[PickleFindings, ...]

    def to_json(self) -> dict[str, Json]:
        return {"tool": TOOL, "version": self.version, "files": [each.to_json() for each in self.files]}


def scan_pickles(folder: Path, paths: Sequence[str]) -> PickleScan:
    """Run picklescan on these files of a folder.

    Raises NotFound (SCAN-EXTRA) if it is not installed, Unavailable (SCAN-FAILED) if it fails or times out.
    """
    version = _version()
    request = json.dumps({"folder": str(folder), "paths": list(paths)})
    command = [sys.executable, "-I", str(Path(__file__).with_name("scan_child.py"))]
    try:
        ran = subprocess.run(command, input=request.encode(), capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _failed(f"no answer within {SECONDS} s") from error
    if ran.returncode or len(ran.stdout) > MAX_ANSWER:
        raise _failed(ran.stderr.decode("utf-8", "replace").strip()[-300:] or f"exit status {ran.returncode}")
    return PickleScan(version, tuple(_findings(item) for item in json.loads(ran.stdout)))


def _version() -> str:
    try:
        return metadata.version(TOOL)
    except metadata.PackageNotFoundError:
        raise NotFound(
            f"{TOOL} is not installed",
            why="it is the extra [scan]",
            hint="pip install 'comity[scan]'",
            code="SCAN-EXTRA",
        ) from None


def _failed(why: str) -> Unavailable:
    hint = "run it without --pickles"
    return Unavailable(f"{TOOL} failed", why=why, hint=hint, code="SCAN-FAILED")


def _findings(item: Mapping[str, Any]) -> PickleFindings:
    imports = (Import(str(g["module"]), str(g["name"]), str(g["level"])) for g in item["imports"])
    return PickleFindings(str(item["path"]), tuple(imports), str(item["failed"]))
