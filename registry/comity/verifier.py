"""`python -m comity.verifier DIR --policy P`: verify an artifact offline; needs only `cryptography` and Comity's code.

This module and `comity.evidence_pack` alone read an artifact's folder and its evidence pack from disk; the command line
and the node use the same functions. All input is untrusted and size-limited; `comity.trust.verify` decides.
"""

from __future__ import annotations

import argparse
import atexit
import concurrent.futures
import contextlib
import gc
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import comity
from comity.bounded_file import read_bounded, read_chunks
from comity.evidence_pack import read_pack, read_prefix, readable
from comity.formats.inspect import inspect
from comity.hashing import hash_by_chain
from comity.trust.artifact import (
    MAX_FILES,
    MAX_MANIFEST,
    RECORD_BYTES,
    FileEntry,
    Manifest,
    PieceRecord,
    check_chained,
    records_bytes,
)
from comity.trust.artifact import MAX_PIECES as MAX_PIECES_OF_FILE
from comity.trust.charter.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.encoding import Digest, printable
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.trust.evidence import (
    MAX_MODEL_SIG,
    MODEL_SIG,
    PACK,
    Evidence,
    EvidenceReader,
    FoundFile,
    Verdict,
)
from comity.trust.exit_statuses import USAGE
from comity.trust.policy import Policy
from comity.trust.policy_file import MAX_POLICY_BYTES, parse_policy
from comity.trust.report import VerdictReport
from comity.trust.verify import verify

BLOCK: Final = 1024 * 1024
TOGETHER: Final = 10_000
"""Files that wait for a thread: of each of them there is an object."""
MAX_NAMED_FILE: Final = 64 * 1024 * 1024
"""Maximum bytes of a file of keys or certificates that a policy names."""
CHAINS: Final = "chains"
"""Folder of a pack with the chained records of large files, each named by the SHA-256 of the file."""
HUB_NOTES: Final = ".cache/huggingface/"
"""In a folder into which a Hub client downloaded: its notes."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_REPOSITORY_PREFIXES: Final = ("models--", "datasets--", "spaces--")
MARKS: Final = {"pass": "PASS", "fail": "FAIL", "unknown": "UNKN", "not-checked": "----"}


def collect_evidence(
    folder: Path,
    *,
    workers: int = 2,
    on_hashed: Callable[[int], None] | None = None,
    reader: EvidenceReader | None = None,
) -> Evidence:
    """Read an artifact's folder and its evidence pack, and hash every file with `workers` threads. Blocking.

    Args:
        reader: parses lines; give it to `verify` too, so that it need not parse them again.
        on_hashed: called with the number of bytes hashed since the last call, from several threads.

    Raises NotFound if there is no such folder, Unavailable if a part of it cannot be read, Malformed if the pack
    exceeds a limit.
    """
    report_progress, stopped = on_hashed or (lambda _: None), threading.Event()

    def counted(count: int) -> None:
        if stopped.is_set():
            raise concurrent.futures.CancelledError  # an interruption waits for no large file
        report_progress(count)

    chains = _Chains(folder / PACK, workers, counted)
    files = tuple(_each_file(folder, _judged(folder), workers, chains.hash_and_inspect, stopped))
    return replace(read_pack(folder, reader), files=files, model_sig=_model_sig(folder, files))


def collect_known(
    folder: Path,
    read: Callable[[Path, str], FoundFile],
    *,
    only: Path | None = None,
    workers: int = 2,
    reader: EvidenceReader | None = None,
) -> Evidence:
    """As `collect_evidence`, for a caller that may know the hashes of files: `read` returns what a regular file is, of
    a path and its name in the artifact.

    Args:
        only: this file or folder in `folder`; the evidence is then partial.
    """
    paths = [path for path in _judged(folder) if only is None or path.is_relative_to(only)]
    files = tuple(_each_file(folder, paths, workers, read, threading.Event()))
    found = replace(read_pack(folder, reader), files=files, model_sig=_model_sig(folder, files))
    return found if only is None else replace(found, partial=True)


def inspect_folder(folder: Path, *, workers: int = 2) -> tuple[FoundFile, ...]:
    """Inspect every file of a folder except its pack, without hashing. Raises NotFound, Unavailable, Malformed."""
    return tuple(_each_file(folder, _walk(folder), workers, _inspect_file, threading.Event()))


def load_policy(path: Path) -> Policy:
    """Read a policy and the federation files that it pins, by relative path. Raises Malformed, Untrusted, NotFound."""
    return read_policy(path)[0]


def read_policy(path: Path, on_read: Callable[[Path], None] = lambda path: None) -> tuple[Policy, bytes]:
    """As `load_policy`, and also the bytes of the policy.

    Args:
        on_read: called with the policy and each file that it names, before it is read.
    """

    def named(name: str) -> Path:
        on_read(path.parent / name)
        return path.parent / name

    on_read(path)
    data = read_bounded(path, MAX_POLICY_BYTES)
    policy = parse_policy(
        data,
        lambda name: read_bounded(named(name), MAX_NAMED_FILE),
        lambda name: read_chunks(named(name), MAX_FEDERATION),
    )
    return policy, data


def hash_file(path: Path, on_hashed: Callable[[int], None]) -> tuple[int, Digest]:
    """(size, SHA-256) of a file, read once with constant memory."""
    with path.open("rb", buffering=0) as file:
        return _hash(file, on_hashed)


def hash_and_inspect(path: Path, name: str, on_hashed: Callable[[int], None] = lambda count: None) -> FoundFile:
    """Hash and inspect the file `name` of an artifact through one descriptor."""
    with path.open("rb", buffering=0) as file:
        size, digest = _hash(file, on_hashed)
        return FoundFile(name, size, digest, inspection=inspect(file, name, size))


class _Chains:
    """Hashes files on all cores by the chained records in a pack. They are hints: a file that does not match them, or
    has none, is hashed in order. Thread-safe.

    Files with chained records are hashed one after the other, each by all `workers`; others by one thread each.
    """

    def __init__(self, pack: Path, workers: int, on_hashed: Callable[[int], None]) -> None:
        self._folder = pack / CHAINS
        self._workers = workers
        self._on_hashed = on_hashed
        self._turn = threading.Lock()
        self._listed: Mapping[str, FileEntry] = {}
        if self._folder.is_dir():
            with contextlib.suppress(ComityError):
                self._listed = Manifest.parse(read_bounded(pack / "manifest.json", MAX_MANIFEST)).by_path

    def hash_and_inspect(self, path: Path, name: str) -> FoundFile:
        """As `hash_and_inspect`."""
        records = self._records(name)
        if not records:
            return hash_and_inspect(path, name, self._on_hashed)
        with path.open("rb", buffering=0) as file:
            with self._turn:
                digest = hash_by_chain(file.fileno(), records, self._workers, self._on_hashed)
            if digest is not None:
                size = self._listed[name].size
                return FoundFile(name, size, digest, inspection=inspect(file, name, size))
        return hash_and_inspect(path, name, self._on_hashed)

    def _records(self, name: str) -> list[PieceRecord]:
        """The records of a listed file; none if they are missing or invalid."""
        entry = self._listed.get(name)
        if entry is None:
            return []
        try:
            limit = min(records_bytes(entry.size), MAX_PIECES_OF_FILE * RECORD_BYTES)
            data = read_bounded(self._folder / entry.sha256, limit)
            return check_chained(data, size=entry.size, digest=entry.sha256)
        except ComityError:
            return []


def _hash(file: io.RawIOBase, on_hashed: Callable[[int], None]) -> tuple[int, Digest]:
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
        size += count
        on_hashed(count)
    return size, Digest(digest.hexdigest())


def _each_file(
    folder: Path,
    paths: Iterable[Path],
    workers: int,
    read: Callable[[Path, str], FoundFile],
    stopped: threading.Event,
) -> Iterator[FoundFile]:
    """The files at `paths` as `read` finds them. `stopped` is set where this ends early, for reads that have begun."""

    def read_entry(path: Path) -> FoundFile:
        name = path.relative_to(folder).as_posix()
        kind = _kind(path, folder)
        if kind != "file":
            return FoundFile(name, 0, None, "link" if kind == "link" else "special")
        with readable(path):
            return read(path, name)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            rest = iter(paths)
            while some := list(itertools.islice(rest, TOGETHER)):
                yield from pool.map(read_entry, some)
        except BaseException:
            stopped.set()
            raise


def _inspect_file(path: Path, name: str) -> FoundFile:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return FoundFile(name, size, None, inspection=inspect(file, name, size))


def _model_sig(folder: Path, files: tuple[FoundFile, ...]) -> bytes | None:
    """The bytes of `model.sig`, if it is a regular file; a link or device of that name is never read."""
    if any(file.path == MODEL_SIG and file.kind == "file" for file in files):
        return read_prefix(folder / MODEL_SIG, MAX_MODEL_SIG)
    return None


def _judged(folder: Path) -> list[Path]:
    """What `_walk` finds, without the notes that a Hub client keeps of its downloads."""
    return [path for path in _walk(folder) if not is_hub_note(path.relative_to(folder).as_posix()) or path.is_symlink()]


def is_hub_note(path: str) -> bool:
    """Whether `hf download --local-dir` writes a file of this path into the folder, beside what it downloads: which
    version it was, and a lock. No program takes it for a part of the model."""
    below = path.removeprefix(HUB_NOTES)
    return below != path and (
        below in (".gitignore", "CACHEDIR.TAG")
        or (below.startswith(("download/", "upload/")) and below.endswith((".metadata", ".lock")))
    )


def _walk(folder: Path) -> list[Path]:
    """All entries below `folder` that are not folders, except the pack. Links to folders are returned as entries.
    Raises NotFound."""
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="comity pull REF --out DIR")
    found: list[Path] = []
    queue = [folder]
    while queue:
        current = queue.pop()
        with readable(current), os.scandir(current) as entries:
            for entry in entries:
                path = current / entry.name
                if not entry.is_dir(follow_symlinks=False):
                    found.append(path)
                elif path != folder / PACK:
                    queue.append(path)
                if len(found) + len(queue) > 2 * MAX_FILES:
                    raise Malformed(
                        "too many files",
                        why=f"a manifest lists at most {MAX_FILES}",
                        hint=f"comity identify {shlex.quote(str(folder))}",
                    )
    return sorted(found)


def _kind(path: Path, folder: Path) -> str:
    """`file`, `link` or `special`. Links from a Hub cache snapshot to its own blobs count as files."""
    if path.is_symlink():
        return "file" if hub_blob(path, folder) is not None else "link"
    return "file" if stat.S_ISREG(path.lstat().st_mode) else "special"


def hub_blob(link: Path, snapshot: Path) -> Path | None:
    """The target of a link that a Hub client made; None for every other link.

    Hub clients make `models--org--name/snapshots/COMMIT/a/b.json -> ../../../blobs/ETAG`: relative, to a regular file
    directly in `blobs` of the same repository. A folder `blobs` outside such a repository does not count.
    """
    real = snapshot.resolve()
    repository = real.parent.parent
    if (
        real.parent.name != "snapshots"
        or not _COMMIT.match(real.name)
        or not repository.name.startswith(_REPOSITORY_PREFIXES)
    ):
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


def render(verdict: Verdict) -> str:
    """The verdict as text, one line per row, with the number of the deciding step of `verify`."""
    subject = verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "unknown artifact")
    lines = [f"Verifying {subject}"]
    for row in verdict.rows:
        lines.append(f"  {MARKS[row.state]}  {row.step or '':>2} {row.name:<24} {printable(row.summary)}")
        if row.hint and row.state != "pass" and row.name in verdict.required:
            lines.append(f"           try: {row.hint}")
    lines.append("ACCEPTED" if verdict.accepted else f"NOT ACCEPTED (exit {verdict.exit_status})")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status (docs/verifying.md)."""
    atexit.register(gc.freeze)  # else Python searches all that it loaded for cycles as it exits
    parser = argparse.ArgumentParser(
        prog="python -m comity.verifier",
        description="Verify an artifact and its evidence pack offline. Exit status: 0 accepted, 3 verification "
        "failed, 4 policy not met, 5 evidence missing, 8 partial, 2 usage or a policy that cannot be read.",
    )
    parser.add_argument("folder", type=Path, help="folder of the artifact, with .comity/ inside")
    parser.add_argument("--policy", type=Path, required=True, help="policy file (TOML)")
    parser.add_argument("--report", type=Path, help="write the report to this file (same evidence, same bytes)")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON document")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        policy = load_policy(options.policy)
    except ComityError as error:
        return _print_error(error, USAGE if isinstance(error, Malformed) else error.exit_status)
    try:
        reader = EvidenceReader()
        verdict = verify(collect_evidence(options.folder, reader=reader), policy, reader=reader)
        if options.report is not None:
            _write(options.report, VerdictReport.of(verdict, comity.__version__).encode())
    except ComityError as error:
        return _print_error(error, error.exit_status)
    sys.stdout.write((json.dumps(verdict.to_json(), indent=1) if options.json else render(verdict)) + "\n")
    return verdict.exit_status


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Unavailable(f"cannot write {path}", why=error.strerror or str(error)) from error


def _print_error(error: ComityError, status: int) -> int:
    sys.stderr.write(f"error: {printable(error.what)}\n" + (f"why: {printable(error.why)}\n" if error.why else ""))
    return status


if __name__ == "__main__":
    sys.exit(main())
