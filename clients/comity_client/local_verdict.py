"""May these files be loaded? Asked by programs before they load: answered from the evidence beside the files (of a pull
or `comity adopt`) and the hashes that are kept, without a network.

    from comity_client.local_verdict import check

    answer = check(Path("model"), Path("policy.toml"))
    if not answer.accepted:
        raise SystemExit(answer.why)

A file is read again only if its device, inode, size or times are others than when it was hashed. The last verdict is
kept too, and is the answer again while the policy, the files that it names, the evidence and the files at the path are
all as they were, by the same signs; a verdict reads no clock, so nothing else can change it. How old the evidence is,
is said by the clock of now. Who can set the clock, or write to the disk itself, can deceive this; `comity verify` reads
every byte.

What changes a file after the answer is not seen: programs that share a machine with others load from files that these
cannot change.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import comity
from comity.content.sqlite_cache import opened_sqlite
from comity.trust.encoding import LAST_TIME, Digest
from comity.trust.errors import NotFound, OutOfSpace, Unavailable
from comity.trust.evidence import MODEL_SIG, PACK, Evidence, EvidenceReader, FoundFile
from comity.trust.frozen import frozen

from comity_client.file_state import SETTLED_SECONDS, file_state
from comity_client.home import Home

if TYPE_CHECKING:
    from comity_client.identify.disk import HashCache

MEMORY: Final = "verdicts.sqlite"
KEPT: Final = 10_000
"""Verdicts that are kept."""
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS judged"
    " (asked BLOB PRIMARY KEY, state BLOB, depends TEXT, cosigned INTEGER, verdict TEXT)"
)


@frozen
class LocalVerdict:
    """The answer about a path.

    Attributes:
        evidence: the folder whose evidence was judged: `path`, or one above it; None if there is none.
        verdict: as docs/schemas/verdict.json describes it.
        cosigned_at: since when enough cosigners have seen the publication, in seconds since 1970, by their clocks; None
            if too few have.
        remembered: nothing has changed since the verdict was made, and no file was opened.
    """

    path: Path
    evidence: Path | None
    verdict: Mapping[str, Any]
    cosigned_at: int | None
    remembered: bool

    @property
    def accepted(self) -> bool:
        """Whether every row that the policy requires passes, of the whole artifact."""
        return bool(self.verdict["accepted"])

    @property
    def exit_status(self) -> int:
        """As of `comity verify`: 8 if the files at the path are right, and others of the artifact are not there."""
        return int(self.verdict["exit_status"])

    @property
    def why(self) -> str:
        """The rows that had to pass and did not; empty if it is accepted."""
        needed = ("artifact", "bytes", *self.verdict["required"])
        rows = [row for row in self.verdict["rows"] if row["row"] in needed and row["state"] != "pass"]
        return "" if self.accepted else "; ".join(f"{row['row']}: {row['summary']}" for row in rows)

    def age(self, now: float) -> float | None:
        """Seconds since `cosigned_at`: what was said later, such as a warning, is not in the evidence."""
        return None if self.cosigned_at is None else max(0.0, now - self.cosigned_at)


def check(path: Path, policy: Path, *, fresh: bool = False, home: Home | None = None) -> LocalVerdict:
    """Judge the files at a path (a folder with evidence, or a file or folder in one) by the policy in a file.

    Args:
        fresh: read every file, whatever is kept.
        home: the state folder, where hashes and verdicts are kept; default `Home.default()`. Where it cannot be
            written, as in some containers, every file is read each time.

    Raises NotFound, Malformed and Untrusted for a policy or path that cannot be read, Unavailable for a file.
    """
    if not path.exists():
        raise NotFound(f"there is nothing at {path}")
    kept = _kept(home or Home.default())
    memory = _Memory(kept, path.absolute(), policy.absolute())
    folder = _with_evidence(path.absolute())
    if not fresh and (found := memory.answer(folder)) is not None:
        return LocalVerdict(path, folder, *found, remembered=True)
    return _judged(path, folder, policy, memory, None if fresh else kept)


def _kept(home: Home) -> Path | None:
    """Where hashes and verdicts are kept; None where that cannot be written."""
    try:
        return home.ensure(home.memory)
    except (Unavailable, OutOfSpace):
        return None


def _with_evidence(path: Path) -> Path | None:
    """The nearest folder at or above a path that has evidence."""
    return next((each for each in (path, *path.parents) if (each / PACK / "manifest.json").is_file()), None)


def _judged(path: Path, folder: Path | None, policy: Path, memory: _Memory, kept: Path | None) -> LocalVerdict:
    from comity.trust.verify import choose_publication, verify
    from comity.verifier import read_policy

    reader, depends = EvidenceReader(), list[Path]()
    judged_by, _ = read_policy(policy.absolute(), depends.append)
    memory.begin(folder, depends)
    keyless = None
    if judged_by.model_signing.identities:
        from comity_client.pull.model_sig import keyless_for

        keyless = keyless_for(judged_by)
    evidence = _evidence(path.absolute(), folder, kept, reader)
    verdict = verify(evidence, judged_by, keyless=keyless, reader=reader)
    chosen = choose_publication(evidence, judged_by, reader)
    newest = chosen.newest_cosigned(judged_by) if chosen else None
    cosigned = min(newest.time, LAST_TIME) if newest else None
    document = verdict.to_json()
    if keyless is None:  # the trusted root of keyless signatures is no file that the policy names
        memory.keep(document, cosigned)
    return LocalVerdict(path, folder, document, cosigned, remembered=False)


def _evidence(path: Path, folder: Path | None, kept: Path | None, reader: EvidenceReader) -> Evidence:
    """The evidence of a folder, and the files at a path in it."""
    from comity.verifier import collect_known

    from comity_client.identify.disk import HashCache

    if folder is None and not (path / MODEL_SIG).is_file():
        return Evidence(None, None)
    cache = HashCache(kept) if kept is not None else None
    try:
        if folder is None:
            return collect_known(path, _reader(cache), reader=reader)
        only = None if path == folder else path
        return collect_known(folder, _reader(cache), only=only, reader=reader)
    finally:
        if cache is not None:
            cache.close()


def _reader(cache: HashCache | None) -> Callable[[Path, str], FoundFile]:
    """What reads a file of an artifact through one descriptor; the hash is that of the cache if it knows the file."""
    from comity.formats.inspect import inspect

    def read(path: Path, name: str) -> FoundFile:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            before, size = file_state(status), status.st_size
            digest = cache.get(before) if cache is not None else None
            if digest is None:
                digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
                if before != file_state(os.fstat(file.fileno())):
                    raise Unavailable(f"{path} changed while it was read", code="CHANGED")
                if cache is not None:
                    cache.keep(before, digest, None)
            return FoundFile(name, size, digest, inspection=inspect(file, name, size))

    return read


class _Memory:
    """The last verdict about a path by a policy, and the state of all that it depends on. A memory that cannot be read
    or written is passed over: everything is judged."""

    def __init__(self, folder: Path | None, path: Path, policy: Path) -> None:
        self._file, self._path = folder / MEMORY if folder else ":memory:", path
        self._asked = _digest([comity.__version__, str(path), str(policy)])
        self._began = time.time()
        self._depends: Sequence[Path] = ()
        self._state: bytes | None = None

    def answer(self, folder: Path | None) -> tuple[dict[str, Any], int | None] | None:
        """Return the verdict and when it was cosigned, if nothing has changed."""
        try:
            with opened_sqlite(self._file, _SCHEMA) as database:
                row = database.execute("SELECT * FROM judged WHERE asked = ?", (self._asked,)).fetchone()
            if row is None:
                return None
            _, state, depends, cosigned, verdict = row
            now, _ = _state_of(self._path, folder, [Path(each) for each in json.loads(depends)])
            return (json.loads(verdict), cosigned) if state == now else None
        except (sqlite3.Error, OSError, ValueError, TypeError):
            return None

    def begin(self, folder: Path | None, depends: Sequence[Path]) -> None:
        """Note the state of what a verdict depends on: the policy and the files that it names (`depends`), which were
        read since this memory was opened, and the evidence and the files, which were not."""
        self._depends = depends
        try:
            state, changed = _state_of(self._path, folder, depends)
        except OSError:
            return
        self._state = state if changed < self._began - SETTLED_SECONDS else None

    def keep(self, verdict: Mapping[str, Any], cosigned: int | None) -> None:
        """Keep a verdict about what `begin` noted."""
        if self._state is None:
            return
        row = (self._asked, self._state, json.dumps(list(map(str, self._depends))), cosigned, json.dumps(verdict))
        try:
            with opened_sqlite(self._file, _SCHEMA) as database, database:
                database.execute("INSERT OR REPLACE INTO judged VALUES (?, ?, ?, ?, ?)", row)
                database.execute("DELETE FROM judged WHERE rowid <= (SELECT max(rowid) FROM judged) - ?", (KEPT,))
        except sqlite3.Error:
            return  # the next one judges again


def _state_of(path: Path, folder: Path | None, depends: Iterable[Path]) -> tuple[bytes, float]:
    """A digest of the states of a policy's files, the evidence in a folder, and all at a path; and when one of them
    changed last. Raises OSError."""
    texts, changed = [str(folder)], 0.0
    for each in (*depends, *(_below(folder / PACK) if folder is not None else ()), *_below(path)):
        states = [each.lstat()]
        if each.is_symlink():
            states.append(each.stat())
        texts.append(f"{each}\0{[(state.st_mode, *file_state(state)) for state in states]}")
        changed = max(changed, *(state.st_ctime for state in states))
    return _digest(texts), changed


def _below(path: Path) -> Iterator[Path]:
    """A path, and what is below it, in order. Raises OSError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    yield path
    if not path.is_dir():
        return
    for above, folders, files in os.walk(path, onerror=refuse):
        folders.sort()
        yield from (Path(above, name) for name in (*folders, *sorted(files)))


def _digest(texts: Iterable[str]) -> bytes:
    return hashlib.sha256(json.dumps(list(texts)).encode()).digest()
