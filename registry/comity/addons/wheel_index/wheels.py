"""The wheels of a manifest, and the pages of their index. Pure functions.

    /-/wheels/swiss-ai/chat-kit/v1/simple/                 every project
    /-/wheels/swiss-ai/chat-kit/v1/simple/numpy/           its wheels, each a link to
    /swiss-ai/chat-kit/resolve/3b18…/wheels/numpy-2.4.4-cp311-….whl#sha256=9f2c…

Links are relative, because a gateway may be below a path that it does not know, and name the commit of the artifact,
so that a link of `main` means the same bytes later. No `requires-python` is given: it is inside the wheels, and each
would have to be read. Sources: PEP 427 (names of files), 503 (HTML), 592 (yanked), 691 and 700 (JSON).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from comity.trust.artifact import FileEntry, Manifest
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen

HTML: Final = "text/html; charset=utf-8"
HTML_V1: Final = "application/vnd.pypi.simple.v1+html"
JSON_V1: Final = "application/vnd.pypi.simple.v1+json"

BASE: Final = "/-/wheels"
MAX_WHEELS: Final = 4_096
"""Wheels that an artifact may have for an index; a kit has some tens."""
MAX_NAME: Final = 255

_WHEEL: Final = re.compile(
    r"(?P<project>[A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?)-(?P<version>[A-Za-z0-9][A-Za-z0-9._+!]*)"
    r"(?:-[0-9][A-Za-z0-9._]*)?(?:-[A-Za-z0-9][A-Za-z0-9._]*){3}\.whl",
    re.ASCII,
)
_SEPARATORS: Final = re.compile(r"[-_.]+")
_UP: Final = "../" * 7
"""From the folder of a project's page to the root of the gateway."""


@frozen
class IndexedWheel:
    """A wheel: its file in the manifest, and what the name of the file says."""

    file: FileEntry
    filename: str
    version: str


@frozen
class WheelIndex:
    """The wheels of an artifact by normalised name of their project, both in order of names."""

    projects: Mapping[str, Sequence[IndexedWheel]]

    @property
    def wheels(self) -> int:
        """How many there are."""
        return sum(map(len, self.projects.values()))


def normalised(project: str) -> str:
    """Return the name of a project as PEP 503 compares it."""
    return _SEPARATORS.sub("-", project).lower()


def index_wheels(manifest: Manifest) -> WheelIndex:
    """Return the wheels among the files, in any folder. A file whose name is not that of a wheel is left out; of equal
    files with one name, the first by path counts. Raises NotFound (WHEEL-INDEX) if there are none, too many, or two of
    one name with other bytes."""
    found: dict[str, IndexedWheel] = {}
    for file in manifest.files:
        filename = file.path.rpartition("/")[2]
        named = _WHEEL.fullmatch(filename) if len(filename) <= MAX_NAME else None
        if named is None:
            continue
        known = found.setdefault(filename.lower(), IndexedWheel(file, filename, named["version"]))
        if known.file.sha256 != file.sha256:
            raise _no_index(f"{known.file.path[:200]!r} and {file.path[:200]!r} are other files with one name")
        if len(found) > MAX_WHEELS:
            raise _no_index(f"it has more than {MAX_WHEELS:,} wheels")
    if not found:
        raise _no_index("none of its files is a wheel")
    projects: dict[str, list[IndexedWheel]] = {}
    for wheel in sorted(found.values(), key=lambda each: each.filename):
        projects.setdefault(normalised(wheel.filename.partition("-")[0]), []).append(wheel)
    return WheelIndex({name: tuple(projects[name]) for name in sorted(projects)})


def _no_index(why: str) -> NotFound:
    return NotFound("no index of wheels of this artifact", why=why, hint="comity pull NAME", code="WHEEL-INDEX")


@frozen
class PagePlace:
    """Of which artifact a page is: its repository and commit, and why it is yanked, empty if it is not."""

    repository: str
    commit: str
    yanked: str = ""

    def link(self, wheel: IndexedWheel) -> str:
        """The address of a wheel, relative to the page of its project, without the hash."""
        return f"{_UP}{quote(self.repository)}/resolve/{self.commit}/{quote(wheel.file.path)}"


def projects_page(index: WheelIndex, form: str) -> bytes:
    """Return the list of projects in the form of a media type."""
    if form == JSON_V1:
        return _json({"projects": [{"name": name} for name in index.projects]})
    return _html("Wheels", (f'<a href="{name}/">{name}</a>' for name in index.projects))


def project_page(project: str, wheels: Sequence[IndexedWheel], place: PagePlace, form: str) -> bytes:
    """Return the list of the wheels of one project."""
    if form == JSON_V1:
        versions = sorted({wheel.version for wheel in wheels})
        files = [_json_file(wheel, place) for wheel in wheels]
        return _json({"name": project, "versions": versions, "files": files})
    return _html(f"Wheels of {project}", (_html_file(wheel, place) for wheel in wheels))


def _json_file(wheel: IndexedWheel, place: PagePlace) -> dict[str, Any]:
    return {
        "filename": wheel.filename,
        "url": place.link(wheel),
        "hashes": {"sha256": wheel.file.sha256},
        "size": wheel.file.size,
        "yanked": place.yanked or False,
    }


def _html_file(wheel: IndexedWheel, place: PagePlace) -> str:
    yanked = f' data-yanked="{html.escape(place.yanked)}"' if place.yanked else ""
    address = html.escape(f"{place.link(wheel)}#sha256={wheel.file.sha256}")
    return f'<a href="{address}"{yanked}>{html.escape(wheel.filename)}</a>'


def _json(members: dict[str, Any]) -> bytes:
    return json.dumps({"meta": {"api-version": "1.1"}, **members}).encode()


def _html(title: str, links: Any) -> bytes:
    head = f'<head><meta name="pypi:repository-version" content="1.1"><title>{html.escape(title)}</title></head>'
    body = "".join(f"{link}<br>\n" for link in links)
    return f"<!DOCTYPE html>\n<html>{head}<body>\n{body}</body></html>\n".encode()


def choose_form(accepted: str) -> str:
    """Return the media type of the answer to an `Accept` field (RFC 9110, section 12.5.1): of those with the highest
    weight the first of JSON, HTML of PEP 691, HTML. HTML if none is named, as a client of PEP 503 expects."""
    weights: dict[str, float] = {}
    for item in accepted.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weights[media] = _weight(parameters)
    for latest, form in (
        ("application/vnd.pypi.simple.latest+json", JSON_V1),
        ("application/vnd.pypi.simple.latest+html", HTML_V1),
    ):
        weights[form] = max(weights.get(form, 0.0), weights.get(latest, 0.0))
    plain = max(weights.get(name, 0.0) for name in ("text/html", "text/*", "*/*"))
    best = max(((weights[JSON_V1], JSON_V1), (weights[HTML_V1], HTML_V1)), key=lambda pair: pair[0])
    return best[1] if best[0] > 0 and best[0] >= plain else HTML


def _weight(parameters: Sequence[str]) -> float:
    text = next((each.partition("=")[2].strip() for each in parameters if each.startswith("q=")), "1")
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
