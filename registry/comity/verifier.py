"""`python -m comity.verifier DIR --policy P`: judge an artifact where there is `cryptography` and nothing else.

This is the one place that reads an artifact's folder and its evidence pack from disk; the command line and the node
use the same functions. What is read is bounded first and believed never: `comity.trust.verify` decides.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from pathlib import Path
from typing import Final

import comity
from comity.formats.inspect import inspect
from comity.trust.artifact import MAX_FILES, MAX_MANIFEST
from comity.trust.artifact import MAX_PIECE_INDEX as MAX_PIECES
from comity.trust.charter.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.encoding import Digest, plain, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.trust.evidence import (
    MAX_MODEL_SIG,
    MAX_PACK_NAMES,
    MAX_READ,
    MODEL_SIG,
    PACK,
    Evidence,
    FoundFile,
    InclusionEvidence,
    Verdict,
)
from comity.trust.policy import MAX_BYTES as MAX_POLICY
from comity.trust.policy import Policy, parse_policy
from comity.trust.report import VerdictReport
from comity.trust.statement import MAX_LINE, MAX_OBJECT_BYTES, Entry, parse_entry
from comity.trust.tlog.proof import MAX_BYTES as MAX_GROWTH
from comity.trust.tlog.proof import MAX_PROOF, is_growth
from comity.trust.verify import verify

BLOCK: Final = 1024 * 1024
MAX_JUNK: Final = 100
"""Lines that are no statements and are noted one by one; beyond that they are counted. So many files that are no
evidence may lie in a pack without a note: an older pack leaves its own behind."""
USAGE: Final = 2
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_REPOSITORIES: Final = ("models--", "datasets--", "spaces--")
MARKS: Final = {"pass": "PASS", "fail": "FAIL", "unknown": "UNKN", "not-checked": "----"}


def examine(folder: Path, *, workers: int = 2, on_hashed: Callable[[int], None] | None = None) -> Evidence:
    """Read an artifact's folder and its pack into `Evidence`, hashing every file (`workers` at a time).

    Args:
        on_hashed: told the number of bytes hashed since the last call; from several threads.

    Raises NotFound where there is no such folder, Unavailable where a part of it cannot be read, Malformed where the
    pack breaks a bound.
    """
    told = on_hashed or (lambda _: None)
    files = tuple(_each_file(folder, workers, lambda path, name: look_at(path, name, told)))
    return replace(read_pack(folder), files=files, model_sig=_model_sig(folder, files))


def survey(folder: Path, *, workers: int = 2) -> tuple[FoundFile, ...]:
    """Every file of a folder but its pack, looked into and not hashed. Raises NotFound, Unavailable, Malformed."""
    return tuple(_each_file(folder, workers, _inspected))


def read_pack(folder: Path) -> Evidence:
    """The evidence pack in an artifact's folder, without its files.

    What cannot be evidence is counted and left out, however much there is of it. Raises Malformed for a manifest beyond
    its bound, Unavailable (TOO-MUCH-EVIDENCE) where claims, proofs or objects are more than anybody reads.
    """
    pack = folder / PACK
    manifest = pack / "manifest.json"
    claims, junk = _claims(pack / "claims.jsonl")
    wanted = {item.digest for entry in claims.values() if entry is not None for item in entry.statement.objects}
    proofs, stray = _proofs(pack / "proofs", {sha256(line) for line in claims})
    objects, unnamed = _objects(pack / "objects", wanted)
    return Evidence(
        manifest=read_bounded(manifest, MAX_MANIFEST) if manifest.is_file() else None,
        files=None,
        claims=tuple(claims),
        proofs=tuple(proofs),
        objects=objects,
        pieces=_head(pack / "pieces.json", MAX_PIECES) if (pack / "pieces.json").is_file() else None,
        partial=(pack / "partial").exists(),
        left_out=(*junk, *stray, *unnamed),
    )


def load_policy(path: Path) -> Policy:
    """Read a policy and the federation files that it pins, relative to it. Raises Malformed, Untrusted, NotFound."""
    return parse_policy(read_bounded(path, MAX_POLICY), lambda name: read_bounded(path.parent / name, MAX_FEDERATION))


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes. Raises NotFound, and Malformed where there are more than `limit`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except OSError as error:
        raise NotFound(f"cannot read {path}", why=error.strerror or str(error)) from error
    if len(data) > limit:
        raise Malformed(f"{path.name} is too large", why=f"more than {limit} bytes")
    return data


def hash_file(path: Path, on_hashed: Callable[[int], None]) -> tuple[int, Digest]:
    """(size, SHA-256) of a file, read once with bounded memory."""
    with path.open("rb", buffering=0) as file:
        return _hash(file, on_hashed)


def look_at(path: Path, name: str, on_hashed: Callable[[int], None] = lambda count: None) -> FoundFile:
    """A file that is called `name` in its artifact: hashed, and looked into through the same descriptor."""
    with path.open("rb", buffering=0) as file:
        size, digest = _hash(file, on_hashed)
        return FoundFile(name, size, digest, inspection=inspect(file, name, size))


def _hash(file: io.RawIOBase, on_hashed: Callable[[int], None]) -> tuple[int, Digest]:
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
        size += count
        on_hashed(count)
    return size, Digest(digest.hexdigest())


def _each_file(folder: Path, workers: int, look: Callable[[Path, str], FoundFile]) -> Iterator[FoundFile]:
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="comity pull REF --to DIR")

    def judge(path: Path) -> FoundFile:
        name = path.relative_to(folder).as_posix()
        kind = _kind(path, folder)
        if kind != "file":
            return FoundFile(name, 0, None, "link" if kind == "link" else "special")
        with _readable(path):
            return look(path, name)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(judge, _walk(folder))


def _inspected(path: Path, name: str) -> FoundFile:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return FoundFile(name, size, None, inspection=inspect(file, name, size))


def _model_sig(folder: Path, files: tuple[FoundFile, ...]) -> bytes | None:
    """The signature beside the artifact; a link or a device of that name is never read."""
    if any(file.path == MODEL_SIG and file.kind == "file" for file in files):
        return _head(folder / MODEL_SIG, MAX_MODEL_SIG)
    return None


def _walk(folder: Path) -> list[Path]:
    """Everything below `folder` that is not a real folder, but the pack. Links to folders are files here: findings."""
    found: list[Path] = []
    unseen = [folder]
    while unseen:
        here = unseen.pop()
        with _readable(here), os.scandir(here) as entries:
            for entry in entries:
                path = here / entry.name
                if not entry.is_dir(follow_symlinks=False):
                    found.append(path)
                elif path != folder / PACK:
                    unseen.append(path)
        if len(found) + len(unseen) > 2 * MAX_FILES:
            raise Malformed("too many files", why=f"a manifest lists at most {MAX_FILES}")
    return sorted(found)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What cannot be looked at is not there: Unavailable, never passed over."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot read {path}", why=error.strerror or str(error)) from error


def _kind(path: Path, folder: Path) -> str:
    """`file`, `link` or `special`. The links of a Hub cache's snapshot to its own blobs are files."""
    if path.is_symlink():
        return "file" if hub_blob(path, folder) is not None else "link"
    return "file" if stat.S_ISREG(path.lstat().st_mode) else "special"


def hub_blob(link: Path, snapshot: Path) -> Path | None:
    """The blob that a link stands for, where it is one that Hub clients make; None for every other link.

    They make `models--org--name/snapshots/COMMIT/a/b.json -> ../../../blobs/ETAG`: relative, to a regular file directly
    in the `blobs` of the same repository. Another folder called `blobs` two levels up is somebody else's.
    """
    real = snapshot.resolve()
    repository = real.parent.parent
    if real.parent.name != "snapshots" or not _COMMIT.match(real.name) or not repository.name.startswith(_REPOSITORIES):
        return None
    try:
        target = link.readlink().as_posix()
    except OSError:
        return None
    up = "../" * (len(link.relative_to(snapshot).parts) + 1)
    name = target.removeprefix(f"{up}blobs/")
    blob = repository / "blobs" / name
    if name == target or "/" in name or blob.is_symlink() or blob.parent.is_symlink() or not blob.is_file():
        return None
    return blob


def _claims(path: Path) -> tuple[dict[bytes, Entry | None], tuple[str, ...]]:
    """Each line once, and what is left out: lines that are no statements, where there are more than `MAX_JUNK`. Up to
    then they are None here, and `verify` says of each what is wrong with it."""
    found: dict[bytes, Entry | None] = {}
    junk, total = list[bytes](), 0
    for line in _lines(path):
        if line in found:
            continue
        try:
            found[line] = parse_entry(line)
        except Malformed:
            total += 1
            if len(junk) <= MAX_JUNK:
                junk.append(line)
    if total > MAX_JUNK:
        return found, (f"{total} lines of {path.name} are no statements and count for nothing",)
    return found | dict.fromkeys(junk), ()


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; of one that no log would hold, its beginning."""
    if not path.is_file():
        return
    with _readable(path), path.open("rb") as file:
        while line := file.readline(MAX_LINE + 2):
            yield line.removesuffix(b"\n")
            while not line.endswith(b"\n") and (line := file.readline(BLOCK)):
                pass
            if file.tell() > MAX_READ:
                raise _too_much(path.name)


def _proofs(folder: Path, lines: Set[Digest]) -> tuple[list[InclusionEvidence], tuple[str, ...]]:
    """Proofs of `lines`, by their names, and what is left out: those of other lines, and files that are too large."""
    proofs, reader = list[InclusionEvidence](), _PackFolder(folder)
    for name in reader.names:
        line = name.partition(".")[0]
        if not name.endswith(".tlog-proof") or line not in lines:
            reader.passed += 1
        elif (data := reader.read(name, MAX_PROOF)) is not None:
            reader.keep(data)
            proofs.append(InclusionEvidence(Digest(line), data))
    return proofs, reader.left_out("prove none of the claims")


def _objects(folder: Path, wanted: Set[Digest]) -> tuple[dict[Digest, bytes], tuple[str, ...]]:
    """Side objects whose bytes are what their names say, and what is left out. An object that no claim names is kept
    only if it could be a proof that a log grew."""
    objects, reader = dict[Digest, bytes](), _PackFolder(folder)
    for name in reader.names:
        data = reader.read(name, MAX_OBJECT_BYTES if name in wanted else MAX_GROWTH)
        if data is None:
            continue
        digest = sha256(data)
        if name != digest or not (digest in wanted or is_growth(data)):
            reader.passed += 1
        else:
            reader.keep(data)
            objects[digest] = data
    return objects, reader.left_out("are no objects of the claims")


class _PackFolder:
    """A folder of the pack that is read file by file, up to `MAX_READ` bytes. `passed` counts what is left out; bytes
    of that do not count. Raises Unavailable (TOO-MUCH-EVIDENCE)."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept, self.passed = folder, 0, 0
        self.names: list[str] = []
        if not folder.is_dir():
            return
        with _readable(folder), os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_PACK_NAMES:
                    raise _too_much(folder.name)
                if entry.is_file():
                    self.names.append(entry.name)
        self.names.sort()

    def read(self, name: str, limit: int) -> bytes | None:
        """The bytes of a file; None, and counted, where there are more than `limit` or it cannot be read."""
        try:
            with (self._folder / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError:
            data = None
        if data is None or len(data) > limit:
            self.passed += 1
            return None
        return data

    def keep(self, data: bytes) -> None:
        self._kept += len(data)
        if self._kept > MAX_READ:
            raise _too_much(self._folder.name)

    def left_out(self, why: str) -> tuple[str, ...]:
        return (f"{self.passed} files in {self._folder.name} {why}",) if self.passed > MAX_JUNK else ()


def _too_much(name: str) -> Unavailable:
    return Unavailable(
        "there is too much evidence to read",
        why=f"more than {MAX_READ} bytes, or {MAX_PACK_NAMES} names, in {name} of the evidence pack",
        hint="comity pull REF --to DIR, into a new folder",
        code="TOO-MUCH-EVIDENCE",
    )


def _head(path: Path, limit: int) -> bytes:
    """At most one byte beyond `limit`: what is longer is then refused by whoever parses it."""
    with _readable(path), path.open("rb") as file:
        return file.read(limit + 1)


def render(verdict: Verdict) -> str:
    """The verdict as plain text, one line a row, with the number of the step of `verify` that decided it."""
    subject = verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "unknown artifact")
    lines = [f"Verifying {subject}"]
    for row in verdict.rows:
        lines.append(f"  {MARKS[row.state]}  {row.step or '':>2} {row.name:<24} {plain(row.summary)}")
        if row.hint and row.state != "pass" and row.name in verdict.required:
            lines.append(f"           try: {row.hint}")
    lines.append("ACCEPTED" if verdict.accepted else f"NOT ACCEPTED (exit {verdict.exit_status})")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status of protocol section 10."""
    parser = argparse.ArgumentParser(
        prog="python -m comity.verifier",
        description="Verify an artifact and its evidence pack, offline. Exit status: 0 accepted, 3 verification "
        "failed, 4 policy not met, 5 evidence missing, 8 partial, 2 usage or a policy that cannot be read.",
    )
    parser.add_argument("folder", type=Path, help="the artifact's folder, with .comity/ inside")
    parser.add_argument("--policy", type=Path, required=True, help="a policy file (TOML)")
    parser.add_argument("--report", type=Path, help="write the report here: the same bytes for the same evidence")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON document")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        policy = load_policy(options.policy)
    except ComityError as error:
        return _complain(error, USAGE if isinstance(error, Malformed) else error.exit_status)
    try:
        verdict = verify(examine(options.folder), policy)
        if options.report is not None:
            _write(options.report, VerdictReport.of(verdict, comity.__version__).encode())
    except ComityError as error:
        return _complain(error, error.exit_status)
    sys.stdout.write((json.dumps(verdict.to_json(), indent=1) if options.json else render(verdict)) + "\n")
    return verdict.exit_status


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Unavailable(f"cannot write {path}", why=error.strerror or str(error)) from error


def _complain(error: ComityError, status: int) -> int:
    sys.stderr.write(f"error: {plain(error.what)}\n" + (f"why: {plain(error.why)}\n" if error.why else ""))
    return status


if __name__ == "__main__":
    sys.exit(main())
