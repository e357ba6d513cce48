"""`python -m comity.verifier DIR --policy P`: judge an artifact where there is `cryptography` and nothing else.

This is the one place that reads an artifact's folder and its evidence pack from disk; the command line and the node
use the same functions. What is read is bounded first and believed never: `comity.trust.verify` decides.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from comity.trust import manifest as manifests
from comity.trust.digest import Digest, parse_digest
from comity.trust.dsse import MAX_LINE
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.evidence import MAX_CLAIMS, MAX_PROOF_BYTES, MAX_PROOFS, PACK, Evidence, FoundFile, Proof
from comity.trust.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.policy import MAX_BYTES as MAX_POLICY
from comity.trust.policy import Policy, parse_policy
from comity.trust.statement import MAX_OBJECT_BYTES
from comity.trust.verdict import Verdict
from comity.trust.verify import verify

BLOCK: Final = 1024 * 1024
MAX_OBJECTS_READ: Final = 256 * 1024 * 1024
MARKS: Final = {"pass": "PASS", "fail": "FAIL", "unknown": "UNKN", "not-checked": "----"}


def examine(folder: Path, *, workers: int = 2, on_hashed: Callable[[int], None] | None = None) -> Evidence:
    """Read an artifact's folder and its pack into `Evidence`, hashing every file (`workers` at a time).

    Args:
        on_hashed: told the number of bytes hashed since the last call; from several threads.

    Raises NotFound where there is no such folder, Malformed where the pack breaks a bound.
    """
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="comity pull REF --to DIR")
    pack = folder / PACK
    files = tuple(_hashed(folder, workers, on_hashed or (lambda _: None)))
    manifest = pack / "manifest.json"
    return Evidence(
        manifest=read_bounded(manifest, manifests.MAX_BYTES) if manifest.exists() else None,
        files=files,
        claims=tuple(_claims(pack / "claims.jsonl")),
        proofs=tuple(_proofs(pack / "proofs")),
        objects=dict(_objects(pack / "objects")),
        partial=(pack / "partial").exists(),
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
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
            on_hashed(count)
    return size, Digest(digest.hexdigest())


def _hashed(folder: Path, workers: int, on_hashed: Callable[[int], None]) -> Iterator[FoundFile]:
    def judge(path: Path) -> FoundFile:
        name = path.relative_to(folder).as_posix()
        kind = _kind(path, folder)
        if kind != "file":
            return FoundFile(name, 0, None, "link" if kind == "link" else "special")
        size, digest = hash_file(path, on_hashed)
        return FoundFile(name, size, digest)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(judge, _walk(folder))


def _walk(folder: Path) -> list[Path]:
    """Everything below `folder` that is not a real folder, but the pack. Links to folders are files here: findings."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not (here == folder and name == PACK)]
        found += [here / name for name in (*files, *links)]
        if len(found) > 2 * manifests.MAX_FILES:
            raise Malformed("too many files", why=f"a manifest lists at most {manifests.MAX_FILES}")
    return sorted(found)


def _kind(path: Path, folder: Path) -> str:
    """`file`, `link` or `special`. A Hub cache's own links (snapshot to blobs of the same repository) are files."""
    if path.is_symlink():
        target = path.resolve()
        blobs = folder.resolve().parent.parent / "blobs"
        return "file" if target.parent == blobs and target.is_file() else "link"
    return "file" if stat.S_ISREG(path.lstat().st_mode) else "special"


def _claims(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for _ in range(MAX_CLAIMS):
            line = file.readline(MAX_LINE + 2)
            if not line:
                return
            if len(line) > MAX_LINE + 1:
                raise Malformed("claims.jsonl is malformed", why=f"a line of more than {MAX_LINE} bytes")
            yield line.rstrip(b"\n")
    raise Malformed("claims.jsonl is too long", why=f"more than {MAX_CLAIMS} claims")


def _proofs(folder: Path) -> Iterator[Proof]:
    names = sorted(folder.glob("*.tlog-proof")) if folder.is_dir() else []
    if len(names) > MAX_PROOFS:
        raise Malformed("too many proofs", why=f"more than {MAX_PROOFS}")
    for path in names:
        line = path.name.partition(".")[0]
        try:
            digest = parse_digest(line)
        except Malformed:
            continue
        yield Proof(digest, read_bounded(path, MAX_PROOF_BYTES))


def _objects(folder: Path) -> Iterator[tuple[Digest, bytes]]:
    """Side objects whose bytes are what their names say; others are not evidence of anything."""
    total = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        data = read_bounded(path, MAX_OBJECT_BYTES)
        total += len(data)
        if total > MAX_OBJECTS_READ:
            raise Malformed("evidence pack is too large", why=f"more than {MAX_OBJECTS_READ} bytes of objects")
        digest = Digest(hashlib.sha256(data).hexdigest())
        if path.name == digest:
            yield digest, data


def render(verdict: Verdict) -> str:
    """The verdict as plain text, one line a row."""
    subject = verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "unknown artifact")
    lines = [f"Verifying {subject}"]
    for row in verdict.rows:
        lines.append(f"  {MARKS[row.state]}  {row.name:<24} {row.summary}")
        if row.hint and row.state != "pass" and row.name in verdict.required:
            lines.append(f"        try: {row.hint}")
    lines.append("ACCEPTED" if verdict.accepted else f"NOT ACCEPTED (exit {verdict.exit_status})")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status of protocol section 10."""
    parser = argparse.ArgumentParser(
        prog="python -m comity.verifier",
        description="Verify an artifact and its evidence pack, offline. Exit status: 0 accepted, 3 verification "
        "failed, 4 policy not met, 5 evidence missing, 8 partial, 2 usage.",
    )
    parser.add_argument("folder", type=Path, help="the artifact's folder, with .comity/ inside")
    parser.add_argument("--policy", type=Path, required=True, help="a policy file (TOML)")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON document")
    options = parser.parse_args(arguments)
    try:
        verdict = verify(examine(options.folder), load_policy(options.policy))
    except ComityError as error:
        sys.stderr.write(f"error: {error.what}\n" + (f"why: {error.why}\n" if error.why else ""))
        return error.exit_status
    sys.stdout.write((json.dumps(verdict.to_json(), indent=1) if options.json else render(verdict)) + "\n")
    return verdict.exit_status


if __name__ == "__main__":
    sys.exit(main())
