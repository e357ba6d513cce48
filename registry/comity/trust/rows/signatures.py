"""Who signed that they published it, and whether they are whom the owner expects."""

from __future__ import annotations

from comity.trust.digest import short
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import algorithms, here, who
from comity.trust.verdict import Row


def signatures_row(found: Findings) -> Row:
    readings, chosen = found.readings, found.chosen
    if chosen is not None and chosen.accepted is not False:
        text = f"published by {who(chosen.publication.publisher)}, {algorithms(chosen.publication.signer)}"
        facts = (here(text, chosen.publication.entry.digest),)
        return Row("signatures", "pass", text, 3, facts=facts)
    if chosen is not None and chosen.named is not False:
        text = f"signed by {who(chosen.publication.publisher)}: {chosen.tenure.text}"
        facts = (here(text, chosen.publication.entry.digest),)
        if chosen.tenure.accepted is None:
            return Row("signatures", "unknown", text, 3, "missing", facts, hint="comity pull REF")
        return Row("signatures", "fail", text, 3, "short", facts)
    if chosen is not None:
        text = f"signed by {who(chosen.publication.publisher)}, who is not the publisher that the policy names"
        return Row("signatures", "fail", text, 3, "short", (here(text, chosen.publication.entry.digest),))
    if readings.failed:
        text = "no published statement about this artifact verifies"
        return Row("signatures", "fail", text, 3, "false", (here(text),))
    if readings.orphans:
        text = f"the record of publisher {short(readings.orphans[0])} is not here"
        return Row("signatures", "unknown", text, 3, "missing", hint="comity pull REF")
    return Row("signatures", "unknown", "nobody says that they published this", 3, "missing", hint="comity pull REF")


def key_policy_row(found: Findings) -> Row:
    chosen = found.chosen
    if chosen is None:
        return Row("key policy", "unknown", "no publisher to judge", 4, "missing")
    publisher = who(chosen.publication.publisher)
    keys = here(chosen.tenure.text, chosen.publication.entry.digest)
    if chosen.named is False:
        text = f"{publisher} is not the publisher that the owner's trust names"
        return Row("key policy", "fail", text, 4, "short", (here(text, found.policy.digest), keys))
    if chosen.accepted is False:
        text = f"{publisher}: {chosen.tenure.text}"
        if chosen.tenure.accepted is None:
            return Row("key policy", "unknown", text, 4, "missing", (keys,))
        return Row("key policy", "fail", text, 4, "short", (keys,))
    if chosen.accepted is None:
        text = f"nobody is pinned for namespace {chosen.publication.published.name.namespace!r}; signer is {publisher}"
        return Row("key policy", "unknown", text, 4, "short", (keys,))
    text = f"{publisher} is the publisher that the owner's trust names"
    return Row("key policy", "pass", text, 4, facts=(here(text, found.policy.digest), keys))
