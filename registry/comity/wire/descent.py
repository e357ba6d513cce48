"""From whom artifacts descend, in the messages of `ListDescent`.

Source: proto/comity/v1/artifact.proto, message ListDescentResponse.
"""

from __future__ import annotations

from typing import Annotated, Final

from comity.rules.descent import BASES, MAX_ROOTS, DescentCount, LineageRoot
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.codec import Exact, Items, MessageCodec, Number, OneOf

_ROOT: Final = MessageCodec(LineageRoot, artifact_pb2.LineageRoot, author=Exact(limits.TOKEN), basis=OneOf(BASES))


def _check_count(count: DescentCount) -> None:
    if count.unsized > count.artifacts or count.requiring > count.artifacts:
        raise Malformed("the counts contradict each other", why="some are of more artifacts than there are")


_COUNT: Final = MessageCodec(
    DescentCount,
    artifact_pb2.DescentCount,
    _check_count,
    roots=Items(MAX_ROOTS + 1, _ROOT),
    artifacts=Number(1, limits.DESCENT_ARTIFACTS),
)


@frozen
class DescentPage:
    """The counts of some artifacts of a node.

    Attributes:
        unread: statements that the node has still to read.
        next: where the next page begins; 0 at the end.
        weeks: the newest weeks in which pulls were counted.
        requiring: the first artifacts that name packages which they do not contain.
    """

    unread: int
    counts: Annotated[tuple[DescentCount, ...], Items(limits.DESCENT_COUNTS, _COUNT)]
    next: int
    weeks: int
    requiring: Annotated[tuple[Digest, ...], Items(limits.DESCENT_REQUIRING)] = ()
