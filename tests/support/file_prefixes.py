"""The question for the artifacts of some files."""

from __future__ import annotations

from collections.abc import Iterable

from comity.trust.encoding import Digest
from comity.wire.files import FilePrefixes, file_reference, prefix_of


def prefixes_of(bits: int, files: Iterable[Digest], *, pieces: bool = False) -> FilePrefixes:
    return FilePrefixes(bits, tuple(sorted({prefix_of(file_reference(file), bits) for file in files})), pieces)
