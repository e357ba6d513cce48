"""Names of artifacts, and references to artifacts, digests and ids as users type them.

    swiss-ai/apertus-8b@v1                 a name and a version
    swiss-ai/apertus-8b                    the newest version that its publisher has not withdrawn
    swiss-ai/apertus-8b@sha256:9f2c…       a name with a digest; the digest decides
    sha256:9f2c…                           the digest alone, also without `sha256:`
    hf:org/name@6c12…                      a commit of a Hugging Face Hub repository that nodes mirrored
    https:host/name@6c12…                  a list of files at a web server that nodes mirrored

Every form may start with `comity://`. Segments follow the Hub's rules, so that names are also valid on the Hub. A
digest or an id has all its digits, or enough to know which one is meant:

    9f2c…            64 hex digits, also behind `sha256:`
    MFZWI3D-…        the spelled form of an id, with its check digits (`format_id`)
    9f2c41d0         at least 8 of its first hex digits
    9f2c41…e01a      its first and last digits, as commands show a digest

A resolver looks an abbreviation up among known ids; it is refused if several match. Anybody can make
an id or an artifact whose digest begins with 8 given digits, so an abbreviation is for people at a terminal and never
for a policy of unknown publishers: what it stands for is always shown in full.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

from comity.trust.encoding import Digest, bare_digest, format_id
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen

MIN_DIGITS: Final = 8
"""Hex digits of an abbreviation."""
SHOWN: Final = 8
"""Candidates that an error lists."""
_PREFIX: Final = "sha256:"
_PARTIAL: Final = re.compile(r"([0-9a-f]{1,64})(?:(?:…|\.\.\.)([0-9a-f]{0,64}))?\Z")
_SPELLED: Final = re.compile(r"[A-Z2-7]{7}(?:-?[A-Z2-7]{7}){7}\Z")
SCHEME: Final = "comity://"
UPSTREAM: Final = "hf:"
"""Prefix of the names of Hugging Face Hub repositories."""
LISTED: Final = "https:"
"""Prefix of the names of lists of files at web servers; the namespace is the host."""
S3: Final = "s3:"
OCI: Final = "oci:"
"""Prefixes of the names of prefixes in S3 buckets and of images in OCI registries; the namespace is the host."""
MS: Final = "ms:"
"""Prefix of the names of ModelScope repositories."""
GIT: Final = "git:"
"""Prefix of the names of git repositories; the namespace is the host."""
ORIGINS: Final = (UPSTREAM, LISTED, S3, OCI, MS, GIT)
_BARE = re.compile(r"(?:[0-9a-f]{64}|[A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})\Z")
_BARE_ABBREVIATION = re.compile(r"[0-9a-f]{8,63}\Z|[0-9a-f]{4,60}(?:…|\.\.\.)[0-9a-f]{0,60}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?\Z")


def parse_id(text: str) -> Digest:
    """Parse a digest or an id with all its digits: hex, behind `sha256:` or not, or the spelled form. Raises Malformed
    (BAD-ID)."""
    spelled = text.strip().upper()
    if _SPELLED.match(spelled):
        return _unspelled(spelled.replace("-", ""), text)
    try:
        return bare_digest(text.strip().lower().removeprefix(_PREFIX))
    except Malformed as error:
        raise _no_id(text, "expected 64 hex digits, or the spelled form") from error


def _unspelled(digits: str, text: str) -> Digest:
    found = Digest(base64.b32decode(f"{digits[:52]}====").hex())
    if format_id(found).replace("-", "") != digits:
        raise _no_id(text, "its check digits do not match: at least one digit is wrong")
    return found


@frozen
class Abbreviation:
    """The first hex digits of a digest, and its last ones if they were given."""

    head: str
    tail: str = ""

    @classmethod
    def parse(cls, text: str) -> Abbreviation | None:
        """Return the abbreviation; None if the text is not made of hex digits, or has all of them. Raises Malformed
        (BAD-ID) for too few digits."""
        found = _PARTIAL.match(text.strip().lower().removeprefix(_PREFIX))
        if found is None or len(found[1]) == 64:
            return None
        head, tail = found[1], found[2] or ""
        if len(head) + len(tail) < MIN_DIGITS:
            raise _no_id(text, f"{len(head) + len(tail)} digits; at least {MIN_DIGITS} are needed")
        return cls(head, tail)

    def matches(self, digest: str) -> bool:
        return digest.startswith(self.head) and digest.endswith(self.tail)

    @property
    def text(self) -> str:
        return f"{self.head}…{self.tail}"


def find_id(text: str, known: Mapping[Digest, str], what: str, hint: str) -> Digest:
    """Return the id that the text gives in full, or the only one of `known` that it abbreviates.

    Args:
        known: the candidates, each with the label under which an error lists it.
        what: what the id is of, for errors: `publisher`.
        hint: where ids are listed, for errors.

    Raises Malformed (BAD-ID, AMBIGUOUS-ID), NotFound (UNKNOWN-ID).
    """
    abbreviation = Abbreviation.parse(text)
    if abbreviation is None:
        return parse_id(text)
    found = {digest: label for digest, label in known.items() if abbreviation.matches(digest)}
    if not found:
        why = f"{len(known)} {what} ids are known here, and none begins like this"
        raise NotFound(f"no {what} {abbreviation.text!r}", why=why, hint=hint, code="UNKNOWN-ID")
    if len(found) > 1:
        raise ambiguous(abbreviation, found, what)
    return next(iter(found))


def is_meant(text: str, digest: str) -> bool:
    """Whether the text gives this digest, or abbreviates it. False for text that is no digest."""
    try:
        abbreviation = Abbreviation.parse(text)
        return abbreviation.matches(digest) if abbreviation else parse_id(text) == digest
    except Malformed:
        return False


def ambiguous(abbreviation: Abbreviation, found: Mapping[Digest, str], what: str) -> Malformed:
    """Return the error that lists the candidates of an abbreviation."""
    listed = "; ".join(f"{digest} {label}".strip() for digest, label in sorted(found.items())[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Malformed(
        f"{abbreviation.text!r} is ambiguous",
        why=f"{len(found)} {what} ids match: {listed}{more}",
        hint="give more digits",
        code="AMBIGUOUS-ID",
    )


def _no_id(text: str, why: str) -> Malformed:
    return Malformed(f"{text[:80]!r} is no digest or id", why=why, hint="give all 64 hex digits", code="BAD-ID")


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


def origin_of(name: str) -> str:
    """The origin with which a name starts, one of `ORIGINS`; empty for a name without one."""
    return next((origin for origin in ORIGINS if name.startswith(origin)), "")


def is_upstream(name: str) -> bool:
    """Whether a name starts with the origin of an upstream."""
    return bool(origin_of(name))


def refers_to_upstream(text: str) -> bool:
    """As `Reference.mirrored`, of a reference as a user typed it, whose digest may be abbreviated."""
    return is_upstream(text.removeprefix(SCHEME))


def without_origin(name: str) -> str:
    """`namespace/name` of a name that may start with an origin."""
    return name.removeprefix(origin_of(name))


def upstream_name(name: str) -> str:
    """The name with its origin; a name without one is of the Hugging Face Hub."""
    return name if is_upstream(name) else f"{UPSTREAM}{name}"


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


@frozen
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
        if reference.repository is None or reference.version is None or text.startswith((SCHEME, *ORIGINS)):
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


@frozen
class Reference:
    """A parsed reference: a repository, a version, a digest; at least one is set. The name of an upstream repository
    starts with its origin (`ORIGINS`)."""

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
        namespace, slash, name = without_origin(repository).partition("/")
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
        """The repository without `hf:`. Other origins stay: their names are no names at a Hub."""
        return (self.repository or "").removeprefix(UPSTREAM)

    @property
    def mirrored(self) -> bool:
        """Whether this is a repository of an upstream."""
        return is_upstream(self.repository or "")

    def __str__(self) -> str:
        tail = f"sha256:{self.digest}" if self.digest else self.version
        return "@".join(part for part in (self.repository, tail) if part)
