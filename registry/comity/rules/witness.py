"""Requests to witnesses and mirrors, and log policies (C2SP tlog-witness, tlog-mirror, tlog-policy).

    old 20852014                                              the body of add-checkpoint
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
                                                              (an empty line, then the signed checkpoint)

    u16 length, origin, u64 start, u64 end, u16 length, ticket        the header of add-entries
    {u16 length, entry} ..., u8 count, {hash} ...                     a package; more packages may follow

    log node-a.example/log+b950a4c1+AUHHUwjEiOiq1D5FJH0Omc6UUfe5eqb/xmiy6D0KXlDT
    witness B node-b.example/cosigner+d7ebe381+BGJatPhBoLK1edrscpVlWE2EGDsPBnO1PCvWsq6K1gwM
    witness C node-c.example/cosigner+1df16898+BF2nGZI7inLkwx/PkyONp/Y+Lzk4bjkg89ijAcEQDJt/
    group cosigners 1 B C
    quorum cosigners

A witness answers add-checkpoint with signature lines. A mirror takes the entries from `start` to before `end` of a log
in packages that end at multiples of 256; the hashes of a package prove that its (up to 256) leaves are in the tree of
`end` leaves. A log policy, which other transparency-log tools read too, lists known logs and the required cosigners;
members, jurisdictions and charters are not part of it (see `comity.trust.policy`). The state of a witness, its decision
to sign, and reading from connections are in other modules.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from comity.rules.cosigned_times import verified_cosigners
from comity.rules.tiles import WIDTH, encode_entries
from comity.rules.tree_proofs import verify_subtree
from comity.trust.encoding import b64decode, b64encode, parse_decimal
from comity.trust.errors import Malformed, PolicyNotMet
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE, leaf_hash, root
from comity.trust.tlog.note import (
    COSIGNER_ALGORITHMS,
    ED25519,
    MAX_SIGNATURES,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    check_name,
    verify_note,
)

MAX_REQUEST: Final = 128 * 1024
"""Bytes of an add-checkpoint request, with space for more signatures than a log makes."""
MAX_ANSWER: Final = 512 * 1024
MAX_PROOF_HASHES: Final = 63


@frozen
class AddCheckpoint:
    """A checkpoint, and the consistency proof from the tree of `old` leaves; not verified. Raises Malformed."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: SignedNote

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_SIZE or any(len(value) != HASH_SIZE for value in self.proof):
            raise _bad_request("size or hash out of bounds")
        if len(self.proof) > MAX_PROOF_HASHES:
            raise _bad_request(f"{len(self.proof)} hashes, at most {MAX_PROOF_HASHES}")

    @property
    def origin(self) -> str:
        """The first line of the checkpoint: the origin of the log, not checked."""
        return self.checkpoint.text.partition("\n")[0]

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """Inverse of `encode`. Raises Malformed."""
        head, _, note = data.partition(b"\n\n")
        try:
            first, *hashes = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise _bad_request("not ASCII before the checkpoint") from error
        if not first.startswith("old ") or len(hashes) > MAX_PROOF_HASHES:
            raise _bad_request(f"expected 'old', a size, and at most {MAX_PROOF_HASHES} hashes")
        old = parse_decimal(first.removeprefix("old "))
        return cls(old, tuple(b64decode(line, size=HASH_SIZE) for line in hashes), SignedNote.parse(note))

    def encode(self) -> bytes:
        lines = (f"old {self.old}", *map(b64encode, self.proof), "", "")
        return "\n".join(lines).encode("ascii") + self.checkpoint.encode()


def parse_signatures(data: bytes) -> tuple[NoteSignature, ...]:
    """Parse the signature lines of a response; there may be none. Raises Malformed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("not signature lines", why="not UTF-8", code="NOTE-SIGNATURE") from error
    lines = text.split("\n")
    if lines.pop() or len(lines) > MAX_SIGNATURES:
        why = f"expected at most {MAX_SIGNATURES} lines, each with its line feed"
        raise Malformed("not signature lines", why=why, code="NOTE-SIGNATURE")
    return tuple(map(NoteSignature.parse, lines))


def encode_signatures(lines: Iterable[NoteSignature]) -> bytes:
    """Inverse of `parse_signatures`."""
    return "".join(f"{line}\n" for line in lines).encode()


def _bad_request(why: str) -> Malformed:
    return Malformed("not an add-checkpoint request", why=why, code="ADD-CHECKPOINT")


@frozen
class MirrorUpload:
    """The entries from `start` to before `end` of a log. `ticket` is empty or from the mirror. Raises Malformed."""

    origin: str
    start: int
    end: int
    ticket: bytes = b""

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.start <= self.end <= MAX_SIZE or len(self.ticket) > 65_535:
            raise Malformed("not an upload", why=f"entries {self.start} to {self.end}", code="ADD-ENTRIES")

    def encode(self) -> bytes:
        name = self.origin.encode()
        head = struct.pack(">H", len(name)) + name + struct.pack(">QQ", self.start, self.end)
        return head + struct.pack(">H", len(self.ticket)) + self.ticket

    def packages(self) -> Iterator[Package]:
        """The packages in order; none if the upload is empty."""
        rounded = self.start - self.start % WIDTH
        for first in range(rounded, self.end if self.start < self.end else rounded, WIDTH):
            yield Package(first, max(first, self.start), min(first + WIDTH, self.end))


@frozen
class Package:
    """The entries from `start` to before `end` in the aligned block of 256 that begins at `first`."""

    first: int
    start: int
    end: int

    def encode(self, entries: Sequence[bytes], proof: Sequence[bytes]) -> bytes:
        return encode_entries(entries) + bytes([len(proof)]) + b"".join(proof)

    def verify(
        self, before: Sequence[bytes], entries: Sequence[bytes], proof: Sequence[bytes], size: int, tree_root: bytes
    ) -> None:
        """Verify that leaf hashes `before`, from `first` on, and then `entries` are in the tree (`size`, `tree_root`).

        Raises Untrusted(code="SUBTREE").
        """
        verify_subtree(self.first, self.end, root([*before, *map(leaf_hash, entries)]), size, tree_root, proof)


@frozen
class MirrorInfo:
    """The state of a mirror: the size of the pending checkpoint, and the next entry that the mirror needs."""

    pending: int
    next_entry: int
    ticket: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> MirrorInfo:
        """Inverse of `encode`. Raises Malformed."""
        lines = data.decode("ascii", "replace").split("\n")
        if len(lines) != 4 or lines[3]:
            raise Malformed("not a mirror response", why="expected three lines", code="ADD-ENTRIES")
        return cls(parse_decimal(lines[0]), parse_decimal(lines[1]), b64decode(lines[2]))

    def encode(self) -> bytes:
        return f"{self.pending}\n{self.next_entry}\n{b64encode(self.ticket)}\n".encode("ascii")


MAX_POLICY: Final = 2_000_000
"""Characters; enough for 1,000 ML-DSA-44 keys."""
NO_QUORUM: Final = "none"

_SURROGATES: Final = "\ud800-\udc7f\udd00-\udfff"  # except those that `surrogateescape` uses for bytes
_COSIGNATURES: Final = frozenset(COSIGNER_ALGORITHMS)
_FORBIDDEN: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f{_SURROGATES}]")
_TOKEN: Final = re.compile(f"[^\x00-\x20\x7f{_SURROGATES}]+\\Z")


@frozen
class PolicyLog:
    key: VerifierKey
    url: str | None = None

    def __str__(self) -> str:
        return _line("log", str(self.key), self.url)


@frozen
class WitnessKeyName:
    """A cosigner; `name` is local to the policy."""

    name: str
    key: VerifierKey
    url: str | None = None

    def __str__(self) -> str:
        return _line("witness", self.name, str(self.key), self.url)


@frozen
class WitnessGroup:
    """Counts as satisfied if `threshold` of its `members` (names of witnesses and groups) are."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __str__(self) -> str:
        return _line("group", self.name, str(self.threshold), *self.members)


WitnessParty: TypeAlias = WitnessKeyName | WitnessGroup


@frozen
class Satisfied:
    """A checkpoint that meets a policy, the signing log key, and the time of each cosignature (POSIX seconds)."""

    checkpoint: Checkpoint
    log: VerifierKey
    cosigned: Mapping[str, int]


@frozen
class TlogPolicy:
    """Known logs, witnesses and groups (each after its members), and the name of the quorum, or "none".

    Raises Malformed(code="TLOG-POLICY") if the policy breaks a rule of the format.
    """

    logs: tuple[PolicyLog, ...]
    parties: tuple[WitnessParty, ...]
    quorum: str

    def __post_init__(self) -> None:
        _check_keys([log.key for log in self.logs], frozenset({ED25519}))
        _check_keys([witness.key for witness in self.witnesses], _COSIGNATURES)
        _check_tokens(*(log.url for log in self.logs), *(witness.url for witness in self.witnesses))
        _check_tokens(*(party.name for party in self.parties))
        _check_order(self.parties)
        if self.quorum not in {NO_QUORUM, *(party.name for party in self.parties)}:
            raise _bad_policy(f"the quorum {self.quorum!r} is not defined")

    @property
    def witnesses(self) -> tuple[WitnessKeyName, ...]:
        return tuple(party for party in self.parties if isinstance(party, WitnessKeyName))

    @classmethod
    def parse(cls, text: str) -> TlogPolicy:
        """Parse a policy; white space, empty lines and comment lines are ignored. Raises Malformed.

        Decode files as UTF-8 with `surrogateescape`: in names, bytes above 0x7f are opaque.
        """
        logs: list[PolicyLog] = []
        parties: list[WitnessParty] = []
        quorum: str | None = None
        for number, tokens in _lines(text):
            match tokens:
                case ["log", key, *url] if len(url) <= 1:
                    logs.append(PolicyLog(VerifierKey.parse(key), *url))
                case ["witness", name, key, *url] if len(url) <= 1:
                    parties.append(WitnessKeyName(name, VerifierKey.parse(key), *url))
                case ["group", name, threshold, *members]:
                    parties.append(WitnessGroup(name, _parse_threshold(threshold, len(members)), tuple(members)))
                case ["quorum", name] if quorum is None:
                    quorum = name
                    if name not in {NO_QUORUM, *(party.name for party in parties)}:
                        raise _bad_policy(f"line {number}: no earlier line defines {name[:80]!r}")
                case _:
                    raise _bad_policy(f"line {number} is not a definition, or is a second quorum")
        if quorum is None:
            raise _bad_policy("no quorum line")
        return cls(tuple(logs), tuple(parties), quorum)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in (*self.logs, *self.parties, _line("quorum", self.quorum)))

    def satisfied(self, note: SignedNote, known_logs: Iterable[VerifierKey] = ()) -> Satisfied:
        """Verify that a listed log, or one of `known_logs`, signed `note` for its own origin, and the quorum cosigned.

        Times are not checked. Raises Malformed, Untrusted (the signature of a known key is not valid, or no log signed)
        and PolicyNotMet(code="QUORUM").
        """
        checkpoint = Checkpoint.parse(note.text)
        log_keys = (*(log.key for log in self.logs), *known_logs)
        signers = verify_note(note, (key for key in log_keys if key.name == checkpoint.origin))
        times = verified_cosigners(note, (witness.key for witness in self.witnesses), checkpoint)
        cosigned = {witness.name: times[witness.key] for witness in self.witnesses if witness.key in times}
        reached = {NO_QUORUM, *cosigned}
        for party in self.parties:
            if isinstance(party, WitnessGroup) and len(reached.intersection(party.members)) >= party.threshold:
                reached.add(party.name)
        if self.quorum not in reached:
            signed = f"{len(cosigned)} of {len(self.witnesses)} listed cosigners signed"
            why = f"{signed}; the quorum {self.quorum!r} is not reached"
            raise PolicyNotMet("too few cosignatures", why=why, code="QUORUM")
        return Satisfied(checkpoint, signers[0], cosigned)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the tokens of each line that is not empty or a comment."""
    if len(text) > MAX_POLICY:
        raise _bad_policy(f"{len(text)} characters, at most {MAX_POLICY} allowed")
    if forbidden := _FORBIDDEN.search(text):
        raise _bad_policy(f"forbidden character {forbidden[0]!r}")
    for number, line in enumerate(text.split("\n"), 1):
        tokens = [token for token in re.split("[ \t]", line) if token]
        if tokens and not tokens[0].startswith("#"):
            yield number, tokens


def _line(*tokens: str | None) -> str:
    return " ".join(token for token in tokens if token is not None)


def _parse_threshold(text: str, members: int) -> int:
    return {"all": members, "any": 1}[text] if text in ("all", "any") else parse_decimal(text)


def _check_keys(keys: Sequence[VerifierKey], types: frozenset[int]) -> None:
    if not types.issuperset(key.type for key in keys):
        raise _bad_policy("a key has a type that its line does not allow")
    if len({key.public for key in keys}) != len(keys):
        raise _bad_policy("a public key is listed twice")


def _check_tokens(*tokens: str | None) -> None:
    for token in tokens:
        if token is not None and not _TOKEN.match(token):
            raise _bad_policy(f"{token[:80]!r} is empty or contains white space or control characters")


def _check_order(parties: Iterable[WitnessParty]) -> None:
    names = {NO_QUORUM}
    free: set[str] = set()  # names that are not yet a member; a name is a member at most once
    for party in parties:
        if party.name in names:
            raise _bad_policy(f"the name {party.name!r} is already defined")
        if isinstance(party, WitnessGroup):
            if len(set(party.members)) != len(party.members) or not free.issuperset(party.members):
                raise _bad_policy(f"a member of {party.name!r} is not defined before it, or is a member twice")
            if not 1 <= party.threshold <= len(party.members):
                raise _bad_policy(f"{party.name!r} has threshold {party.threshold} of {len(party.members)} members")
            free.difference_update(party.members)
        names.add(party.name)
        free.add(party.name)


def _bad_policy(why: str) -> Malformed:
    return Malformed("not a log policy", why=why, code="TLOG-POLICY")
