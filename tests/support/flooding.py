"""Junk statements about an artifact, its publisher and its name, and what their readers must not lose by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from attackers.forging import Identity as Stranger
from attackers.forging import Release
from comity.trust.encoding import Digest
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Published, sign_advisory, sign_published
from support.world import Identity

FLOODS: Final = ("fresh", "listed", "member")
"""Whose: each statement of another identity, all of one identity whose lines nodes take, all of one member."""
LONG: Final = "x" * 1_500
OF_PUBLISHER: Final = ("the publisher withdraws it", "the publisher lost a key")
OF_MEMBER: Final = "a member warns"
OF_ISSUER: Final = "an issuer whom the policy names warns"
WORDS: Final = (*OF_PUBLISHER, OF_MEMBER, OF_ISSUER)


@dataclass(frozen=True)
class Subject:
    """A name with its first version `published`, and those who say something about it."""

    published: Published
    publisher: Identity
    issuer: Identity
    member: Identity
    loud: Identity
    """Another member."""

    @property
    def name(self) -> str:
        return self.published.name.repository

    @property
    def artifact(self) -> Digest:
        return self.published.artifact

    def honest(self, origin: str) -> list[bytes]:
        """The publications of v1 and v2 of the same bytes, and the warnings."""
        second = replace(self.published, name=replace(self.published.name, version="v2"))
        lost = Compromise(self.publisher.signer.public.id, origin, 1 << 40)
        withdrawn, stolen = OF_PUBLISHER
        notice = Advisory(self.publisher.inception.author, self.publisher.id, KEY_COMPROMISE, "critical", stolen, lost)
        return [
            self.publisher.entry.line,
            sign_published(self.published, self.publisher.signer).line,
            sign_published(second, self.publisher.signer).line,
            self.issuer.entry.line,
            warning(self.publisher, self.artifact, withdrawn, kind="superseded"),
            warning(self.issuer, self.artifact, OF_ISSUER),
            warning(self.member, self.artifact, OF_MEMBER),
            sign_advisory(notice, self.publisher.signer).line,
        ]

    def junk(self, whose: str, first: int, count: int) -> Iterator[bytes]:
        """`count` statements about the artifact, the identity of its publisher, and its name."""
        listed = Stranger.made("an author whose lines nodes take")
        if whose == "listed":
            yield listed.inception
        for number in range(first, first + count):
            text, about = f"{LONG} {number}", (self.artifact, self.publisher.id)[number % 2]
            if whose == "member":
                yield warning(self.loud, about, text, kind="superseded")
                continue
            who = listed if whose == "listed" else Stranger.made(f"nobody {number}")
            if whose == "fresh":
                yield who.inception
            if number % 3 == 2:
                yield who.publish(f"{self.name}@v{1 + number % 2}", Release(b"%d\n" % number))
            else:
                yield who.advise(about, text)


def warning(by: Identity, subject: Digest, text: str, *, kind: str = "malware") -> bytes:
    return sign_advisory(Advisory(by.inception.author, subject, kind, "high", text), by.signer).line
