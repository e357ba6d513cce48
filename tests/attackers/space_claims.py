"""Attacks by one member on the space that mirrors have for copies: what it publishes is promised space, is made of
bytes that a mirror has already, or is never complete.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from support.lying_node import Answer, NotHere, Pause, Question
from support.raw_bytes import leaf_hash, message, tree_hash

from attackers.attacker import Target, attacker
from attackers.forging import Author, Identity, RawKey, Release, canonical, sha256
from attackers.hostile_node import HostileNode

PIECE = 4 << 20
FOR_EVER = 3_600.0
CHUNK = 1 << 20
SPACE = 96 << 20
"""The disk of each victim (`interference.federation`): no claim has more."""


def encoded(length: int, digest: bytes) -> bytes:
    """A piece record."""
    return min(length, 0xFFFFFFFF).to_bytes(4, "big") + digest


@dataclass(frozen=True)
class WideFile:
    """A file by its pieces, which need not exist: the length and the SHA-256 of each."""

    path: str
    digest: str
    records: tuple[tuple[int, bytes], ...]

    @classmethod
    def invented(cls, path: str, size: int, seed: str) -> WideFile:
        """A file that nobody has. One of a single piece has the digest of that piece."""
        lengths = [PIECE] * (size // PIECE) + ([size % PIECE] if size % PIECE else [])
        invented = [hashlib.sha256(f"{seed} {path} {number}".encode()).digest() for number in range(len(lengths))]
        digest = invented[0].hex() if len(lengths) == 1 else sha256(f"{seed} {path}".encode())
        return cls(path, digest, tuple(zip(lengths, invented, strict=True)))

    @classmethod
    def of(cls, path: str, *parts: bytes) -> WideFile:
        """A file made of these pieces; all but the last have 4 MiB."""
        whole = hashlib.sha256()
        for part in parts:
            whole.update(part)
        return cls(path, whole.hexdigest(), tuple((len(part), hashlib.sha256(part).digest()) for part in parts))

    @property
    def size(self) -> int:
        return sum(length for length, _ in self.records)

    @property
    def encoded(self) -> bytes:
        return b"".join(encoded(length, digest) for length, digest in self.records)


@dataclass(frozen=True)
class WideRelease(Release):
    """A publication of such files."""

    data: bytes = b""
    files: tuple[WideFile, ...] = field(default=())

    @property
    def manifest(self) -> bytes:
        files = [{"path": file.path, "sha256": file.digest, "size": file.size} for file in self.files]
        size = sum(file.size for file in self.files)
        return canonical({"files": files, "schema": "comity/manifest/v1", "size": size})

    @property
    def pieces(self) -> bytes:
        files = []
        for file in self.files:
            leaves = [leaf_hash(encoded(length, digest)) for length, digest in file.records]
            root = tree_hash(leaves).hex()
            layout = {"count": len(file.records), "layout": "fixed-4MiB/1", "path": file.path, "root": root}
            files.append(layout)
        return canonical({"files": files, "schema": "comity/pieces/v1"})


def claimed(size: int, seed: str) -> WideRelease:
    return WideRelease(files=(WideFile.invented("weights.bin", size, seed),))


SIZES = (*range(SPACE, 0, -(1 << 20)), 768 << 10, 512 << 10, 256 << 10)
"""Sizes of claims, the largest first: whatever is free, some of them leave less than 256 KiB of it."""


def publish(target: Target, releases: Sequence[WideRelease], authors: Iterable[Author] = ()) -> None:
    """Publish in the own log, and serve the side objects and the piece records."""
    member, records = target.member, dict[bytes, bytes]()
    by = list(authors) or [member.member]
    for release in releases:
        member.have(*release.objects)
        records |= {bytes.fromhex(file.digest): file.encoded for file in release.files}

    def serve(node: HostileNode, question: Question) -> Iterable[bytes]:
        if (data := records.get(question.data(1))) is None:
            raise NotHere
        return [message((1, data[at : at + CHUNK])) for at in range(0, len(data), CHUNK)]

    def stat(node: HostileNode, question: Question) -> Iterable[bytes]:
        asked = [digest for digest in question.fields.get(1, []) if isinstance(digest, bytes)]
        return [message(*((1, message((1, digest), (2, digest in records), (3, SPACE))) for digest in asked))]

    member.lies |= {"GetRecords": serve, "Stat": stat}
    for number, release in enumerate(releases):
        author = by[number % len(by)]
        inception = (author.inception,) if isinstance(author, Identity) and number < len(by) else ()
        member.say(*inception, author.publish(f"junk/space-{number}@v1", release))


def until_asked(target: Target, call: str, lie: Callable[[HostileNode, Question], Iterable[Answer]]) -> None:
    """Answer a call by `lie`; the attack is ready when every victim may have asked, or does not."""
    asked = 0

    def counted(node: HostileNode, question: Question) -> Iterable[Answer]:
        nonlocal asked
        asked += 1
        return lie(node, question)

    target.member.lies[call] = counted
    for _ in target.going_on(12.0):
        if asked >= 2 * len(target.victims):
            break
        time.sleep(0.1)
    target.hold()


def dribble(node: HostileNode, question: Question) -> Iterator[Answer]:
    """One byte in eight seconds, of the ten that a node waits for the next."""
    while question.alive():
        yield b"\0"
        yield Pause(8.0)


def silent(node: HostileNode, question: Question) -> Iterator[Answer]:
    """Never answer."""
    yield Pause(FOR_EVER)


@attacker("claims of all free space that receive a few bytes", "H1", by="member", emits=lambda: claimed(9, "s").objects)
def dribbled_claims(target: Target) -> None:
    publish(target, [claimed(size, f"dribbled {size}") for size in SIZES])
    until_asked(target, "Read", dribble)


@attacker("claims of all free space whose piece records never come", "H1", by="member")
def claims_without_records(target: Target) -> None:
    publish(target, [claimed(size, f"without records {size}") for size in SIZES])
    until_asked(target, "GetRecords", silent)


@attacker("claims of all free space by a hundred publishers in one log", "H1", by="member")
def claims_of_many_publishers(target: Target) -> None:
    people = [Identity((RawKey.of_seed(f"publisher {number}"),), f"publisher {number}") for number in range(100)]
    publish(target, [claimed(size, f"of many {size}") for size in SIZES], people)
    until_asked(target, "Read", silent)


@attacker("claims that receive one piece and stop", "H1", by="member")
def claims_that_stop(target: Target) -> None:
    block = bytes(PIECE)
    tails = [size // PIECE for size in range(2 * PIECE, SPACE, PIECE)]
    files = [
        WideFile("weights.bin", sha256(b"stops %d" % count), ((PIECE, hashlib.sha256(block).digest()),) * count)
        for count in tails
    ]
    publish(target, [WideRelease(files=(file,)) for file in reversed(files)])

    def lie(node: HostileNode, question: Question) -> Iterator[Answer]:
        if question.number(2) == 0:
            yield from (block[at : at + CHUNK] for at in range(0, PIECE, CHUNK))
        yield Pause(FOR_EVER)

    until_asked(target, "Read", lie)


@attacker("claims of all free space, each with a thousand files", "H1", by="member")
def claims_of_many_files(target: Target) -> None:
    releases = [
        WideRelease(
            files=tuple(WideFile.invented(f"{at:04}", size // 1_000, f"many files {size}") for at in range(1_000))
        )
        for size in SIZES[::16]
    ]
    publish(target, releases)
    until_asked(target, "Read", silent)


@attacker("claims of more bytes than any disk has", "H1", by="member", emits=lambda: huge(1).objects)
def absurd_claims(target: Target) -> None:
    publish(target, [huge(number) for number in range(40)])
    target.hold()


def huge(number: int) -> WideRelease:
    """A manifest of 2^53 - 1 bytes, whose index names pieces that nobody can count."""
    file = WideFile("weights.bin", sha256(b"huge %d" % number), ((2**53 - 1, bytes(32)),))
    return WideRelease(files=(file,))


def reusing(number: int, first: bytes) -> WideRelease:
    """12 MiB, of which one byte is new."""
    return WideRelease(files=(WideFile.of("weights.bin", first, first, first, b"%d" % number),))


def served(target: Target, releases: Sequence[WideRelease], *parts: bytes) -> None:
    """Serve the bytes of each release, whose pieces are among these; zeros for the others."""
    known = {hashlib.sha256(part).digest(): part for part in parts}
    files = {bytes.fromhex(file.digest): file for release in releases for file in release.files}

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        if (file := files.get(question.data(1))) is None:
            raise NotHere
        start, end, at = question.number(2), question.number(2) + question.number(3), 0
        for length, digest in file.records:
            if at < end and at + length > start:
                part = known.get(digest, bytes(length))[max(0, start - at) : end - at]
                yield from (part[begin : begin + CHUNK] for begin in range(0, len(part), CHUNK))
            at += length

    until_asked(target, "Read", lie)


@attacker("artifacts made of pieces that the others have", "H2", by="member", emits=lambda: claimed(5, "r").objects)
def reused_pieces(target: Target) -> None:
    """201 bytes for an artifact, of which a mirror writes all the others once more."""
    first = bytes(PIECE)
    releases = [WideRelease(files=(WideFile.of("weights.bin", first),)), *(reusing(n, first) for n in range(12))]
    publish(target, releases)
    served(target, releases, first, *(b"%d" % number for number in range(12)))


@attacker("artifacts of which all but the last piece arrives", "H2", by="member")
def incomplete_artifacts(target: Target) -> None:
    """Each leaves what arrived in the folder of partial files."""
    first, releases = bytes(PIECE), []
    for number in range(16):
        kept = WideFile.of("weights.bin", first, first, first)
        lost = (PIECE, hashlib.sha256(b"lost %d" % number).digest())
        digest = sha256(b"incomplete %d" % number)
        releases.append(WideRelease(files=(WideFile("weights.bin", digest, (*kept.records, lost)),)))
    publish(target, releases)
    served(target, releases, first)


@attacker("one artifact under many names, and each of its files in a hundred others", "H2", by="member")
def one_file_in_many(target: Target) -> None:
    first = bytes(PIECE)
    shared = WideFile.of("weights.bin", first, b"shared")
    others = [WideFile.of("notes.txt", b"%d" % number) for number in range(100)]
    releases = [WideRelease(files=(other, shared)) for other in others]
    publish(target, [*releases, *releases[:50]])
    served(target, releases, first, b"shared", *(b"%d" % number for number in range(100)))


@attacker("the others' artifacts, claimed again by a member that used its space", "H2", by="member")
def claimed_again(target: Target) -> None:
    """Also with piece indexes that do not match."""
    member = target.member
    publish(target, [claimed(size, f"used {size}") for size in SIZES])
    for artifact in target.known.artifacts:
        data = claimed(SPACE // 8, artifact)
        body = {"documents": {}, "licence": {"spdx": "MIT", "text": None}, "lineage": [], "name": "junk/again@v1",
                "manifest": {"digest": artifact, "size": 150},
                "pieces": {"digest": sha256(data.pieces), "size": len(data.pieces)}}  # fmt: skip
        objects = [body["manifest"], body["pieces"]]
        member.have(data.pieces)
        member.say(member.member.say("published", ("junk/again@v1", artifact), body, objects))  # type: ignore[arg-type]  # named above
    until_asked(target, "Read", dribble)
