"""What a pull is asked for, what it works with, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comity.rules.artifact_kind import Bases
from comity.transfer.limits import TransferLimits
from comity.trust.encoding import Digest
from comity.trust.evidence import Verdict
from comity.trust.frozen import frozen

from comity_client.cache_basis import CacheBasis
from comity_client.events import OnEvent
from comity_client.evidence.inquiry import Inquiry
from comity_client.pull.placed_pieces import PlacedPieces
from comity_client.pull.small_files import BytesBySource
from comity_client.seen import KnownNames, SeenLogs
from comity_client.trust_store import Bindings


@frozen
class PullOrder:
    """What to pull, and where to: into folder `to`, or else into a Hub cache (default: the user's own).

    `include` are patterns as in Hub tools (`*.safetensors`); only matching files are pulled, a partial pull. `exclude`
    are patterns of files that are left out, also of the included ones.
    """

    reference: str
    to: Path | None = None
    hub_cache: Path | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()


@frozen
class PullContext:
    """The nodes and the policy of a pull, the stores of the user, and the limits."""

    inquiry: Inquiry
    bindings: Bindings
    names: KnownNames
    seen_logs: SeenLogs
    placed: PlacedPieces
    limits: TransferLimits
    on_event: OnEvent


@frozen
class Pulled:
    """Result of a pull. `folder` has the files by path. `here` counts bytes that were in place already; `alarms` are
    log contradictions found. The verdict of a partial pull has status 8. `cache`: no node answered, and the copy here,
    verified again, is the answer. `bases`: what its publisher names that is needed beside it."""

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: int
    bytes: int
    here: int
    tally: BytesBySource
    alarms: tuple[str, ...]
    cache: CacheBasis | None = None
    bases: Bases = Bases()
