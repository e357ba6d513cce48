"""Whose statement a list of new statements shows: the groups of `comity.trust.precedence` for lists about everything.

NAMED     members, their nodes, publishers to whom the charter binds a namespace, and those whom the policy of this
          node names
MEMBERS   a publisher about its own artifact, and an identity about itself
OTHERS    everybody else
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from comity.ledger.proven import ProvenTables
from comity.node.members import Membership
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.precedence import MEMBERS, NAMED, OTHERS
from comity.trust.statement import Statement
from comity.verifier import read_policy

PUBLISHERS: Final = 8
"""Publishers and observers of an artifact, the earliest, to whom it belongs in lists."""

_log: Final = structlog.get_logger("comity.node")


class StatementGroups:
    """Args:
    named: returns those whom the policy of this node names now.
    """

    def __init__(
        self, proven: ProvenTables, membership: Membership, named: Callable[[], Collection[Digest]] = tuple
    ) -> None:
        self._proven = proven
        self._membership = membership
        self._named = named

    def of(self, statement: Statement) -> int:
        """Blocking. The group of a proven statement."""
        by = statement.by
        if by is None:
            return OTHERS
        if by.id in self._membership.precedence.members or by.id in self._named():
            return NAMED
        about = {subject.digest for subject in statement.subjects}
        own = by.id in about or any(by.id in self._proven.first_publishers(digest, PUBLISHERS) for digest in about)
        return MEMBERS if own else OTHERS


class NamedByPolicy:
    """Whom the policy in a file names. The file is read again when it has changed; one that cannot be read then changes
    nothing, and the node says so.

    Raises NotFound, Malformed and Untrusted, as `read_policy` does, when it is made.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen = self._stamp()
        self._named = read_policy(file)[0].named if file is not None else ()

    def __call__(self) -> Collection[Digest]:
        """Blocking."""
        if self._file is None or (stamp := self._stamp()) == self._seen:
            return self._named
        self._seen = stamp
        try:
            self._named = read_policy(self._file)[0].named
        except ComityError as error:
            _log.warning("the policy cannot be read; whom it named before still counts", why=str(error))
        return self._named

    def _stamp(self) -> tuple[int, int, int]:
        if self._file is None:
            return 0, 0, 0
        with suppress(OSError):
            found = self._file.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return 0, 0, 0
