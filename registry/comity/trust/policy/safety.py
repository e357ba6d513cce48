"""`[safety]`: what may be active in files. Refused is everything else, and headers that make no sense."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, parse_digest
from comity.trust.errors import Malformed
from comity.trust.policy.table import Table, naming, wrong
from comity.trust.safety import DEFAULT_ALLOW, FORMATS, KINDS, kind_of

_DIGEST: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class SafetyRule:
    """Active content of these `kinds` is accepted, and all that is in files whose path matches one of `paths` or whose
    bytes are among `files`. With `formats`, files of other formats are refused as well."""

    kinds: frozenset[str] = frozenset(DEFAULT_ALLOW)
    paths: tuple[str, ...] = ()
    files: frozenset[Digest] = frozenset()
    formats: frozenset[str] = frozenset()

    def exempts(self, path: str, digest: Digest | None) -> bool:
        return digest in self.files or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.paths)

    def accepts(self, active: str) -> bool:
        """Whether what an inspection found may be there."""
        return kind_of(active) in self.kinds

    def accepts_format(self, name: str) -> bool:
        return not self.formats or name in self.formats


def read_safety(table: Table) -> SafetyRule:
    """Raises Malformed (POLICY-SYNTAX)."""
    allowed = table.strings("allow", DEFAULT_ALLOW)
    formats = frozenset(table.each("formats", _format))
    table.done()
    with naming(table.what, "allow"):
        files = frozenset(parse_digest(item) for item in allowed if item.startswith(_DIGEST))
    kinds = frozenset(item for item in allowed if item in KINDS)
    paths = tuple(item for item in allowed if item not in kinds and not item.startswith(_DIGEST))
    for path in paths:
        if not set(path) & set("/.*"):
            close = difflib.get_close_matches(path, KINDS, 1)
            guess = f"did you mean {close[0]!r}?" if close else f"kinds are {', '.join(KINDS)}"
            raise wrong(table.what, f"{path[:80]!r} is no kind, path or sha256:…; {guess}")
    return SafetyRule(kinds, paths, files, formats)


def _format(name: str) -> str:
    if name in FORMATS:
        return name
    close = difflib.get_close_matches(name, FORMATS, 1)
    hint = f'write "{close[0]}"' if close else f"formats are {', '.join(sorted(FORMATS))}"
    raise Malformed(f"{name[:40]!r} is no format", why="no file is ever found to have it", hint=hint)
