"""Log policies (C2SP tlog-policy): which logs are known, and which cosigners suffice.

    log node-a.example/log+b950a4c1+AUHHUwjEiOiq1D5FJH0Omc6UUfe5eqb/xmiy6D0KXlDT
    witness B node-b.example/cosigner+d7ebe381+BGJatPhBoLK1edrscpVlWE2EGDsPBnO1PCvWsq6K1gwM
    witness C node-c.example/cosigner+1df16898+BF2nGZI7inLkwx/PkyONp/Y+Lzk4bjkg89ijAcEQDJt/
    group cosigners 1 B C
    quorum cosigners

This is the format that other transparency-log tools read. Members, jurisdictions and charters are not in it: the
verifier of artifacts has a policy of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.encoding import parse_decimal
from comity.trust.errors import Malformed, PolicyNotMet
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.cosignature import verified_cosigners
from comity.trust.tlog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    MLDSA44_COSIGNATURE,
    SignedNote,
    VerifierKey,
    verify_note,
)

MAX_POLICY: Final = 2_000_000
"""Characters; room for 1,000 ML-DSA-44 keys."""
NO_QUORUM: Final = "none"

_SURROGATES: Final = "\ud800-\udc7f\udd00-\udfff"  # but those that stand for single bytes
_COSIGNATURES: Final = frozenset({ED25519_COSIGNATURE, MLDSA44_COSIGNATURE})
_UNFIT: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f{_SURROGATES}]")
_WORD: Final = re.compile(f"[^\x00-\x20\x7f{_SURROGATES}]+\\Z")


@dataclass(frozen=True, slots=True)
class Log:
    key: VerifierKey
    url: str | None = None

    def __str__(self) -> str:
        return _line("log", str(self.key), self.url)


@dataclass(frozen=True, slots=True)
class Witness:
    """A cosigner; `name` has a meaning in the policy only."""

    name: str
    key: VerifierKey
    url: str | None = None

    def __str__(self) -> str:
        return _line("witness", self.name, str(self.key), self.url)


@dataclass(frozen=True, slots=True)
class Group:
    """Counts as a witness once `threshold` of its `members` (names of witnesses and groups) do."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __str__(self) -> str:
        return _line("group", self.name, str(self.threshold), *self.members)


Party: TypeAlias = Witness | Group


@dataclass(frozen=True, slots=True)
class Satisfied:
    """A checkpoint that meets a policy: the log that signed it, and when each listed cosigner did (POSIX seconds)."""

    checkpoint: Checkpoint
    log: VerifierKey
    cosigned: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TlogPolicy:
    """Known logs, witnesses and groups (each after those that it names), and the name of the quorum, or "none".

    Raises Malformed(code="TLOG-POLICY") for what the format forbids.
    """

    logs: tuple[Log, ...]
    parties: tuple[Party, ...]
    quorum: str

    def __post_init__(self) -> None:
        _check_keys([log.key for log in self.logs], frozenset({ED25519}))
        _check_keys([witness.key for witness in self.witnesses], _COSIGNATURES)
        _check_words(*(log.url for log in self.logs), *(witness.url for witness in self.witnesses))
        _check_words(*(party.name for party in self.parties))
        _check_order(self.parties)
        if self.quorum not in {NO_QUORUM, *(party.name for party in self.parties)}:
            raise _malformed(f"the quorum {self.quorum!r} is not defined")

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        return tuple(party for party in self.parties if isinstance(party, Witness))

    @classmethod
    def parse(cls, text: str) -> TlogPolicy:
        """Read a policy; spacing, empty lines and comment lines do not count. Raises Malformed.

        A file is decoded as UTF-8 with `surrogateescape`: in names, bytes above 0x7f are opaque.
        """
        logs: list[Log] = []
        parties: list[Party] = []
        quorum: str | None = None
        for number, words in _lines(text):
            match words:
                case ["log", key, *url] if len(url) <= 1:
                    logs.append(Log(VerifierKey.parse(key), *url))
                case ["witness", name, key, *url] if len(url) <= 1:
                    parties.append(Witness(name, VerifierKey.parse(key), *url))
                case ["group", name, threshold, *members]:
                    parties.append(Group(name, _parse_threshold(threshold, len(members)), tuple(members)))
                case ["quorum", name] if quorum is None:
                    quorum = name
                    if name not in {NO_QUORUM, *(party.name for party in parties)}:
                        raise _malformed(f"line {number}: no earlier line defines {name[:80]!r}")
                case _:
                    raise _malformed(f"line {number} is no definition, or a second quorum")
        if quorum is None:
            raise _malformed("no quorum line")
        return cls(tuple(logs), tuple(parties), quorum)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in (*self.logs, *self.parties, _line("quorum", self.quorum)))

    def satisfied(self, note: SignedNote, known_logs: Iterable[VerifierKey] = ()) -> Satisfied:
        """That (1) a log that is listed, or known otherwise, signed `note` for its own origin; (2) the quorum cosigned.

        Times are not judged. Raises Malformed, Untrusted (a known key's signature is wrong, or no log's is there) and
        PolicyNotMet(code="QUORUM").
        """
        checkpoint = Checkpoint.parse(note.text)
        log_keys = (*(log.key for log in self.logs), *known_logs)
        signers = verify_note(note, (key for key in log_keys if key.name == checkpoint.origin))
        times = verified_cosigners(note, (witness.key for witness in self.witnesses), checkpoint)
        cosigned = {witness.name: times[witness.key] for witness in self.witnesses if witness.key in times}
        reached = {NO_QUORUM, *cosigned}
        for party in self.parties:
            if isinstance(party, Group) and len(reached.intersection(party.members)) >= party.threshold:
                reached.add(party.name)
        if self.quorum not in reached:
            why = f"{len(cosigned)} of {len(self.witnesses)} listed cosigners signed; {self.quorum!r} asks for others"
            raise PolicyNotMet("too few cosignatures", why=why, code="QUORUM")
        return Satisfied(checkpoint, signers[0], cosigned)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that says something, with the number of the line."""
    if len(text) > MAX_POLICY:
        raise _malformed(f"{len(text)} characters, at most {MAX_POLICY} are read")
    if unfit := _UNFIT.search(text):
        raise _malformed(f"a control character {unfit[0]!r}")
    for number, line in enumerate(text.split("\n"), 1):
        words = [word for word in re.split("[ \t]", line) if word]
        if words and not words[0].startswith("#"):
            yield number, words


def _line(*words: str | None) -> str:
    return " ".join(word for word in words if word is not None)


def _parse_threshold(text: str, members: int) -> int:
    return {"all": members, "any": 1}[text] if text in ("all", "any") else parse_decimal(text)


def _check_keys(keys: Sequence[VerifierKey], types: frozenset[int]) -> None:
    if not types.issuperset(key.type for key in keys):
        raise _malformed("a key of a type that its line does not take")
    if len({key.public for key in keys}) != len(keys):
        raise _malformed("a public key is listed twice")


def _check_words(*words: str | None) -> None:
    for word in words:
        if word is not None and not _WORD.match(word):
            raise _malformed(f"{word[:80]!r} is not one word")


def _check_order(parties: Iterable[Party]) -> None:
    names = {NO_QUORUM}
    free: set[str] = set()  # to be a member: every name is one at most once
    for party in parties:
        if party.name in names:
            raise _malformed(f"the name {party.name!r} is taken")
        if isinstance(party, Group):
            if len(set(party.members)) != len(party.members) or not free.issuperset(party.members):
                raise _malformed(f"a member of {party.name!r} is not defined before it, or is a member twice")
            if not 1 <= party.threshold <= len(party.members):
                raise _malformed(f"{party.name!r} asks for {party.threshold} of {len(party.members)}")
            free.difference_update(party.members)
        names.add(party.name)
        free.add(party.name)


def _malformed(why: str) -> Malformed:
    return Malformed("not a log policy", why=why, code="TLOG-POLICY")
