"""Names of artifacts, and references to artifacts as users type them.

    swiss-ai/apertus-8b@v1                 a name and a version
    swiss-ai/apertus-8b                    the newest version that its publisher has not withdrawn
    swiss-ai/apertus-8b@sha256:9f2c…       a name with a digest; the digest decides
    sha256:9f2c…                           the digest alone, also without `sha256:`
    hf:org/name@6c12…                      a commit of a Hugging Face Hub repository that nodes mirrored

Every form may start with `comity://`. A digest may be abbreviated (`abbreviations`); whoever resolves the reference
looks it up. Segments follow the Hub's rules, so that names are also valid on the Hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from comity.trust.abbreviations import Abbreviation, parse_id
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed

SCHEME: Final = "comity://"
UPSTREAM: Final = "hf:"
"""Prefix of the names of Hugging Face Hub repositories."""
_BARE = re.compile(r"(?:[0-9a-f]{64}|[A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})\Z")
_BARE_ABBREVIATION = re.compile(r"[0-9a-f]{8,63}\Z|[0-9a-f]{4,60}(?:…|\.\.\.)[0-9a-f]{0,60}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?\Z")


def check_segment(text: str, what: str) -> str:
    """Return `text` if it is valid as a namespace, a name or a version. Raises Malformed (BAD-NAME)."""
    if not _SEGMENT.match(text) or "--" in text or ".." in text or text.endswith(".git"):
        raise Malformed(
            f"{what} {text[:96]!r} cannot be used",
            why="expected 1 to 96 letters, digits, '_', '.', '-'; no '--' or '..', no '.' or '-' at either end",
            code="BAD-NAME",
        )
    return text


def is_segment(text: str) -> bool:
    """Whether `check_segment` accepts `text`."""
    try:
        check_segment(text, "text")
    except Malformed:
        return False
    return True


def abbreviated(text: str) -> tuple[str | None, Abbreviation] | None:
    """Return the repository, if any, and the abbreviated digest of a reference as a user typed it. None if it has no
    digest, or all digits of it. Raises Malformed (BAD-ID) for too few digits, and for a bad repository."""
    name, at, digest = text.removeprefix(SCHEME).rpartition("@")
    if at and not digest.startswith("sha256:"):
        return None
    if not digest.startswith("sha256:") and not _BARE_ABBREVIATION.match(digest):
        return None
    found = Abbreviation.parse(digest)
    if found is None:
        return None
    return Reference.parse(name).repository if at else None, found


@dataclass(frozen=True, slots=True)
class Name:
    """`namespace/name@version`, as a `published` statement gives it."""

    namespace: str
    name: str
    version: str

    def __post_init__(self) -> None:
        check_segment(self.namespace, "namespace")
        check_segment(self.name, "name")
        check_segment(self.version, "version")

    @classmethod
    def parse(cls, text: str) -> Name:
        reference = Reference.parse(text)
        if reference.repository is None or reference.version is None or text.startswith((SCHEME, UPSTREAM)):
            raise Malformed(
                f"{text[:200]!r} is not a full name", why="expected namespace/name@version", code="BAD-NAME"
            )
        namespace, _, name = reference.repository.partition("/")
        return cls(namespace, name, reference.version)

    @property
    def repository(self) -> str:
        return f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.version}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: a repository, a version, a digest; at least one is set. The name of an upstream repository
    starts with its origin (`hf:`)."""

    repository: str | None
    version: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference with all digits of its digest. Raises Malformed (BAD-NAME), which lists the accepted forms,
        and Malformed (BAD-ID) for its digest."""
        rest = text.removeprefix(SCHEME)
        if rest.startswith("sha256:") or _BARE.match(rest):
            return cls(None, None, parse_id(rest))
        repository, at, version = rest.partition("@")
        namespace, slash, name = repository.removeprefix(UPSTREAM).partition("/")
        if not slash:
            raise Malformed(
                f"{text[:200]!r} is not an artifact reference",
                why="expected namespace/name, namespace/name@version or sha256:<64 hex digits>",
                hint="comity search WORD",
                code="BAD-NAME",
            )
        check_segment(namespace, "namespace")
        check_segment(name, "name")
        if version.startswith("sha256:"):
            return cls(repository, None, parse_id(version))
        return cls(repository, check_segment(version, "version") if at else None, None)

    @property
    def local(self) -> str:
        """The repository without its origin: `namespace/name`."""
        return (self.repository or "").removeprefix(UPSTREAM)

    @property
    def mirrored(self) -> bool:
        """Whether this is a repository of an upstream."""
        return (self.repository or "").startswith(UPSTREAM)

    def __str__(self) -> str:
        tail = f"sha256:{self.digest}" if self.digest else self.version
        return "@".join(part for part in (self.repository, tail) if part)
