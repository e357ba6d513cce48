"""What names meant to this user when they were resolved first, and go on meaning whoever claims them later.

    names/<id>.json    one repository: its name, and whose it was: a publisher, or the upstream repository of that name

A binding in the trust store, and the namespaces of a pinned charter, come before it; `comity trust unbind` forgets it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.digest import bare_digest, sha256
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.errors import Malformed, NotFound
from comity.trust.fields import Fields
from comity.trust.judging.claimants import Claimant
from comity.verifier import read_bounded

from comity_client.owner.lock import exclusive

SCHEMA: Final = "comity/known-name/v1"
MAX_FILE: Final = 4_096


class KnownNames:
    """The names in `folder`, which must exist. Methods raise Malformed where a file in it is broken, OutOfSpace,
    Unavailable."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._folder = folder / "names"
        with durable.disk_errors(f"{folder} was not opened"):
            durable.make_folders(self._folder, mode=0o700)

    def claimant(self, repository: str) -> Claimant | None:
        """Whose the name was when it was resolved first; None where it never was."""
        path = self._path(repository)
        try:
            data = read_bounded(path, MAX_FILE)
        except NotFound:
            return None
        try:
            fields = Fields(parse_canonical(data, limit=MAX_FILE, what="known name"), "known name")
            fields.constant("schema", SCHEMA)
            name, publisher = fields.text("repository", most=512), fields.take("publisher")
            fields.done()
            if name != repository.lower():
                raise Malformed("known name is malformed", why=f"it is about {name!r}")
            return Claimant(None if publisher is None else bare_digest(publisher))
        except Malformed as error:
            raise Malformed(
                f"what {repository} meant before cannot be read", why=str(error), hint=f"remove {path}"
            ) from error

    def remember(self, repository: str, claimant: Claimant) -> None:
        """Keep whose the name is, where nothing is kept yet."""
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "repository": repository.lower(),
            "publisher": claimant.publisher,
        }
        with exclusive(self._root):
            if not self._path(repository).exists():
                durable.write_file(self._path(repository), canonical(document), mode=0o600, point="memory")

    def forget(self, repository: str) -> bool:
        """Whether anything was kept."""
        with exclusive(self._root), durable.disk_errors("a known name was not removed"):
            kept = self._path(repository).exists()
            self._path(repository).unlink(missing_ok=True)
        return kept

    def _path(self, repository: str) -> Path:
        return self._folder / f"{sha256(repository.lower().encode())[:32]}.json"
