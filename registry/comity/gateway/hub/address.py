"""What a request's path asks for. Read from the raw path: a revision such as `refs/pr/1` comes with its slashes quoted.

    /api/{kind}                                     every repository
    /api/{kind}/{id}[/{view}[/{revision}[/{path}]]]   what is known of one
    /[{kind}/]{id}/resolve/{revision}/{path}        a file of one

`id` is `namespace/name`, or a name alone, as the oldest repositories of the Hub have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from comity.trust.errors import Malformed, NotFound

KINDS: Final = ("models", "datasets", "spaces", "kernels")
PREFIXES: Final = KINDS[1:]
VIEWS: Final = ("revision", "tree", "paths-info", "refs", "commits", "auth-check")
RESOLVE: Final = "resolve"
MAIN: Final = "main"


@dataclass(frozen=True, slots=True)
class Address:
    """A view (`""` is the repository itself) of a repository; `path` is a file or folder in it, without slashes around
    it. `head` and `tail` are what stands before and after the repository's id, as it was written."""

    view: str
    repository: str
    revision: str
    path: str
    head: str
    tail: str

    @property
    def model(self) -> bool:
        """Whether it asks for a model, not for a repository of another kind."""
        return self.head in ("/", f"/api/{KINDS[0]}/")

    def renamed(self, repository: str) -> str:
        """The same address for another name of the repository."""
        return f"{self.head}{repository}{self.tail}"


def read_api(raw: str) -> Address:
    """`/api/{kind}/…`. Raises NotFound (NO-SUCH-ROUTE), Malformed."""
    segments = raw.split("/")[3:]  # "", "api", kind
    at = _view_at(segments, VIEWS)
    if at is None and len(segments) > 2:
        raise _nowhere()
    view = segments[at] if at is not None else ""
    length = at if at is not None else len(segments)
    rest = segments[length + 1 :]
    head = "/".join(raw.split("/")[:3]) + "/"
    return _address(view, segments[:length], rest, head)


def read_resolve(raw: str) -> Address:
    """`/[{kind}/]{id}/resolve/{revision}/{path}`. Raises NotFound (NO-SUCH-ROUTE), Malformed."""
    segments = raw.split("/")[1:]
    prefix = segments[:1] if segments and segments[0] in PREFIXES else []
    segments = segments[len(prefix) :]
    at = _view_at(segments, (RESOLVE,))
    if at is None or len(segments) < at + 3:
        raise _nowhere()
    head = "/" + "".join(f"{part}/" for part in prefix)
    return _address(RESOLVE, segments[:at], segments[at + 1 :], head)


def _view_at(segments: list[str], views: tuple[str, ...]) -> int | None:
    """Where the view stands: after two segments of a name, else after one."""
    return next((at for at in (2, 1) if len(segments) > at and segments[at] in views), None)


def _address(view: str, name: list[str], rest: list[str], head: str) -> Address:
    repository = "/".join(_decoded(segment) for segment in name)
    revision = _decoded(rest[0]) if rest and rest[0] else MAIN
    path = _decoded("/".join(rest[1:])).strip("/")
    tail = "".join(f"/{part}" for part in ((view, *rest) if view else ()))
    return Address(view, repository, revision, path, head, tail)


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("the address cannot be read", why="it is not UTF-8") from error


def _nowhere() -> NotFound:
    return NotFound("there is nothing at this address", code="NO-SUCH-ROUTE")
