"""Names that the shell may complete: models, members, nodes and logs that this user has met.

Only local files are read, a bounded number of bytes of them; no node is asked, so a dead node delays nobody. What is
read is not verified: it is a suggestion, and the command verifies what it is given. Names that a shell would interpret
are not suggested, because others choose them.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

MAX_FILES: Final = 2000
MAX_NAME_BYTES: Final = 4096
MAX_FEDERATION_BYTES: Final = 16 * 1024 * 1024
MAX_SUGGESTED: Final = 200
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._:/+-]{0,255}\Z")


class LocalName(StringParamType):
    """Any text; the shell completes it with names that `source` finds in the files of this user."""

    def __init__(self, source: Callable[[], Iterable[str]]) -> None:
        self._source = source

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return suggestions(self._source, incomplete)


def suggestions(source: Callable[[], Iterable[str]], incomplete: str) -> list[CompletionItem]:
    """The plain names that begin with what was typed, at most `MAX_SUGGESTED`. Never raises for unreadable files."""
    try:
        found = sorted({name for name in source() if name.startswith(incomplete) and _PLAIN.match(name)})
    except OSError:
        return []
    return [CompletionItem(name) for name in found[:MAX_SUGGESTED]]


def models() -> Iterator[str]:
    """Models that this user resolved or pulled before, as `namespace/name`."""
    for file in _files(_state() / "memory" / "names", ".json"):
        name = _mapping(_json(file, MAX_NAME_BYTES)).get("repository")
        if isinstance(name, str):
            yield name
    for folder in _files(_hub_cache(), ""):
        parts = folder.name.split("--")
        if len(parts) == 3 and parts[0] == "models":
            yield f"{parts[1]}/{parts[2]}"


def members() -> Iterator[str]:
    """Members of the pinned federations."""
    for federation in _federations():
        for epoch in _list(federation.get("epochs"))[-1:]:
            body = _mapping(_parsed(str(_mapping(epoch).get("body", ""))))
            for member in _list(body.get("members")):
                if isinstance(name := _mapping(member).get("name"), str):
                    yield name


def logs() -> Iterator[str]:
    """Logs of the nodes of the pinned federations."""
    for federation in _federations():
        for node in _list(federation.get("nodes")):
            envelope = _mapping(_parsed(str(_mapping(node).get("record", ""))))
            try:
                payload = base64.b64decode(str(envelope.get("payload", "")))
            except ValueError:
                continue
            predicate = _mapping(_mapping(_parsed(payload.decode("utf-8", "replace"))).get("predicate"))
            yield str(predicate.get("log", "")).partition("+")[0]


def nodes() -> Iterator[str]:
    """Nodes of the pinned federations, by name."""
    return (name.removesuffix("/log") for name in logs())


OF_ARGUMENTS: Final[Mapping[str, Callable[[], Iterable[str]]]] = {
    "reference": models,
    "references": models,
    "member": members,
    "origin": logs,
}
"""The source of suggestions for an argument, by its name."""


def _federations() -> Iterator[Mapping[str, Any]]:
    for file in _files(_state() / "trust", ".json"):
        yield _mapping(_json(file, MAX_FEDERATION_BYTES))


def _state() -> Path:
    """The state folder of this user, as `comity_client.home` finds it."""
    from comity_client.home import Home

    return Home.default().root


def _hub_cache() -> Path:
    chosen, home = os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_HOME")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or (f"{home}/hub" if home else f"{base}/huggingface/hub")).expanduser()


def _files(folder: Path, ending: str) -> Iterator[Path]:
    """At most `MAX_FILES` entries of a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_FILES:
                    return
                if entry.name.endswith(ending) and not entry.name.startswith("."):
                    yield Path(entry.path)
    except OSError:
        return


def _json(file: Path, limit: int) -> Any:
    try:
        with file.open("rb") as source:
            data = source.read(limit + 1)
    except OSError:
        return None
    return _parsed(data.decode("utf-8", "replace")) if len(data) <= limit else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
