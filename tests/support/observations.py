"""Observations of upstream commits by nodes of `support.world`."""

from __future__ import annotations

from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import Entry, SideObject
from comity.trust.upstream import Matched, Observed, Obtained, Upstream
from support.world import Node

COMMIT = "1f" * 20
NAME = f"hf:org/tiny@{COMMIT}"


def observation(
    by: Node,
    artifact: Digest,
    *,
    commit: str = COMMIT,
    how: str = "fetched",
    at: str = "https://hub.example",
    size: int = 100,
    repository: str = "org/tiny",
) -> Entry:
    """An observation of `by` that `artifact` is a commit of `repository`."""
    fetched = how == "fetched"
    said = Observed(
        by=by.record.node.id,
        upstream=Upstream(at if fetched else "", repository, commit, "main"),
        artifact=artifact,
        manifest=SideObject(artifact, size),
        pieces=SideObject(sha256(b"pieces"), 1),
        files=SideObject(sha256(b"files"), 1),
        matched=Matched(4, 0, 0, 0, 0, 0) if how == "carried" else Matched(4, 1, 3, 1, 0, 0),
        unchecked=("commit",) if fetched else ("commit", "upstream"),
        obtained=Obtained(how, 1, 2, "comity"),
    )
    return sign_content(said, by.online)
