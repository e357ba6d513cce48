"""Junk statements about an artifact, its publisher and its name, and the words that their readers must not lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from attackers.forging import Identity as Stranger
from attackers.forging import Release
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.keys import HybridSigner
from comity.trust.statement import Author
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise
from support.world import Identity

FLOODS: Final = ("fresh", "listed", "member")
"""Whose: each statement of another identity, all of one identity whose lines nodes take, all of one member."""
LONG: Final = "x" * 1_500
LICENCE: Final = "the publisher changes the licence"
WITHDRAWN: Final = "the publisher withdraws it"
STOLEN: Final = "a key of the publisher is gone"
OF_MEMBER: Final = "a member says that the licence is another"
OF_ISSUER: Final = "an issuer whom the policy names warns"
WORDS: Final = (LICENCE, WITHDRAWN, STOLEN, OF_MEMBER, OF_ISSUER)


@dataclass(frozen=True)
class Adviser:
    """Somebody with one key."""

    author: Author
    signer: HybridSigner

    @classmethod
    def of(cls, identity: Identity) -> Adviser:
        return cls(identity.inception.author, identity.signer)

    def advise(self, subject: Digest, text: str, kind: str = "licence-change") -> bytes:
        severity = "info" if kind == "licence-change" else "high"
        return sign_content(Advisory(self.author, subject, kind, severity, text), self.signer).line


@dataclass(frozen=True)
class Subject:
    """A name, with a good artifact and one that is withdrawn, and those who say something about them."""

    name: str
    good: Digest
    withdrawn: Digest
    publications: tuple[bytes, ...]
    publisher: Identity
    issuer: Identity
    member: Adviser
    loud: Adviser
    """Another member."""

    def honest(self, origin: str) -> list[bytes]:
        """The publications, and what the publisher, a member and the issuer say later."""
        publisher = Adviser.of(self.publisher)
        lost = Compromise(self.publisher.signer.public.id, origin, 1 << 40)
        notice = Advisory(publisher.author, self.publisher.id, KEY_COMPROMISE, "critical", STOLEN, lost)
        return [
            self.publisher.entry.line,
            *self.publications,
            self.issuer.entry.line,
            publisher.advise(self.good, LICENCE),
            publisher.advise(self.withdrawn, WITHDRAWN, "yank"),
            self.member.advise(self.good, OF_MEMBER),
            Adviser.of(self.issuer).advise(self.withdrawn, OF_ISSUER, "malware"),
            sign_content(notice, publisher.signer).line,
        ]

    def junk(self, floods: Sequence[str], first: int, count: int) -> Iterator[bytes]:
        """`count` statements of each flood, about the artifacts, the identity of the publisher, and the name."""
        listed = Stranger.made("an author whose lines nodes take")
        subjects = (self.good, self.withdrawn, self.publisher.id)
        for number in range(first, first + count):
            text, about = f"{LONG} {number}", subjects[number % 3]
            if "member" in floods:
                yield self.loud.advise(about, text)
            if "listed" in floods:
                yield from (listed.inception, self._said(listed, number))
            if "fresh" in floods:
                fresh = Stranger.made(f"nobody {number}")
                yield from (fresh.inception, self._said(fresh, number))

    def _said(self, who: Stranger, number: int) -> bytes:
        if number % 4 == 3:
            return who.publish(f"{self.name}@v{1 + number % 8 // 4}", Release(b"%d\n" % number))
        return who.advise((self.good, self.withdrawn, self.publisher.id)[number % 4], f"{LONG} {number}")
