"""The charges of copies, as a test makes them: without a quota, and on a disk as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.node.replication.copy_admission import AdmissionLimits, CopyAdmission
from comity.node.replication.copy_charges import CopyCharges
from comity.node.threads import AsyncLedger, Pools
from comity.rules.mirror_rules import MirrorQuotas


def made_charges(
    ledger: Ledger,
    store: BlobStore,
    pools: Pools,
    *,
    quotas: MirrorQuotas | None = None,
    limits: AdmissionLimits | None = None,
    members: Mapping[str, str] | None = None,
    own_log: str = "",
    now: Callable[[], float] = time.monotonic,
) -> CopyCharges:
    admission = CopyAdmission(limits or AdmissionLimits(stop=0))
    return CopyCharges(
        quotas or MirrorQuotas({}), admission, AsyncLedger(ledger), store, pools, own_log, lambda: members or {}, now
    )
