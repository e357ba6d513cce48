"""Repositories elsewhere, and how they are named here.

hf:org/name              a repository of the Hugging Face Hub
hf:org/name@main         as one of its branches or tags stood
hf:org/name@6c12… (40)   one of its commits, whose bytes never change
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.names import UPSTREAM, check_segment

HUB: Final = "huggingface-hub"
MAX_ENDPOINT: Final = 300
MAX_REVISION: Final = 255

_ENDPOINT: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~%+-]+)*\Z"
)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_REVISION: Final = re.compile(r"[!-~]{1,255}\Z")


def check_commit(text: str) -> str:
    """`text`, if it is a commit id as git writes it: 40 lower-case hex digits. Raises Malformed."""
    if not _COMMIT.match(text):
        raise Malformed("not a commit id", why=f"expected 40 lower-case hex digits, got {text[:60]!r}")
    return text


def is_commit(text: str) -> bool:
    return _COMMIT.match(text) is not None


def check_revision(text: str) -> str:
    """`text`, if it can name a branch, a tag or a commit. Raises Malformed (BAD-NAME)."""
    if not _REVISION.match(text) or ".." in text or text.startswith(("/", "-")) or text.endswith("/"):
        raise Malformed(
            f"{text[:80]!r} is no revision", why="expected a branch, a tag or 40 hex digits", code="BAD-NAME"
        )
    return text


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants from a Hub: a repository, and a revision, `main` where none is named. The oldest repositories
    have no organisation in their names; the Hub says what they are called now."""

    repository: str
    revision: str = "main"

    def __post_init__(self) -> None:
        if "/" in self.repository:
            check_repository(self.repository)
        else:
            check_segment(self.repository, "repository")
        check_revision(self.revision)

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """`hf:org/name[@revision]`. Raises Malformed (BAD-NAME)."""
        repository, at, revision = text.removeprefix(UPSTREAM).partition("@")
        if not text.startswith(UPSTREAM):
            raise Malformed(f"{text[:200]!r} names nothing elsewhere", why="expected hf:org/name", code="BAD-NAME")
        return cls(repository, revision if at else "main")

    def __str__(self) -> str:
        return f"{UPSTREAM}{self.repository}@{self.revision}"


def check_repository(text: str) -> str:
    """`text`, if it is `org/name` by the Hub's rules. Raises Malformed (BAD-NAME)."""
    parts = text.split("/")
    if len(parts) != 2:
        raise Malformed(f"{text[:200]!r} is no repository", why="expected org/name", code="BAD-NAME")
    for part in parts:
        check_segment(part, "repository")
    return text


@dataclass(frozen=True, slots=True)
class Upstream:
    """A commit of a repository at a Hub. `endpoint` is the URL that was asked, empty where nobody was; `requested` is
    the branch, tag or commit that a person named."""

    endpoint: str
    repository: str
    commit: str
    requested: str

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)
        check_repository(self.repository)
        check_commit(self.commit)
        check_revision(self.requested)
        if is_commit(self.requested) and self.requested != self.commit:
            raise Malformed("not an upstream", why="the commit that was asked for is another one")

    @property
    def name(self) -> str:
        """`hf:org/name@commit`."""
        return f"{UPSTREAM}{self.repository}@{self.commit}"

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": HUB,
            "endpoint": self.endpoint,
            "repository": self.repository,
            "commit": self.commit,
            "requested": self.requested,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Upstream:
        fields.constant("kind", HUB)
        made = cls(
            fields.text("endpoint", least=0, most=MAX_ENDPOINT),
            fields.text("repository", most=200),
            fields.text("commit", most=40),
            fields.text("requested", most=MAX_REVISION),
        )
        fields.done()
        return made


def check_endpoint(url: str) -> str:
    """`url`, if it is `http[s]://host[:port][/path]` without credentials, query and closing slash, or empty. Raises
    Malformed."""
    found = _ENDPOINT.match(url)
    if url and (found is None or len(url) > MAX_ENDPOINT or not 0 < int(found[1] or 1) < 65_536):
        raise Malformed("not an endpoint", why="expected https://host[:port][/path]", code="BAD-ENDPOINT")
    return url
