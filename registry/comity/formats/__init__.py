"""File formats, identified by their bytes: tensor layouts of weight files, and content that a loader would execute.

Files are untrusted. Readers raise Malformed for anything they cannot parse, `inspect` reports it as a finding, and each
reader states how much it reads and holds at most. Nothing is executed, unpickled or rendered.
"""

from __future__ import annotations

from comity.trust.frozen import frozen


@frozen
class TensorLayout:
    """The end of the header, and the starts of the tensors: absolute offsets, ascending, distinct, inside the file and
    not before `header_end`. Tensors without elements are omitted."""

    header_end: int
    starts: tuple[int, ...]
