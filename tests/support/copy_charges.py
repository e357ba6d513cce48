"""The charges of copies, as a test makes them: without a quota, and on a disk as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.node.replication.copy_admission import AdmissionLimits, CopyAdmission
from comity.node.replication.copy_charges import CopyCharges
from comity.node.threads import AsyncLedger, Pools
from comity.rules.mirror_rules import MirrorQuotas
from support.context import node_context


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
    membership = SimpleNamespace(names=members or {}, own_node=SimpleNamespace(log=own_log))
    context = node_context(ledger=AsyncLedger(ledger), store=store, pools=pools, membership=membership)
    return CopyCharges(quotas or MirrorQuotas({}), admission, context, now)
