"""Under which licence it is, as its publisher claims."""

from __future__ import annotations

from comity.trust.digest import short
from comity.trust.rows.findings import Findings
from comity.trust.rows.lineage import conflict_facts
from comity.trust.rows.wording import who
from comity.trust.verdict import Fact, Row


def licence_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    if not policy.licences or chosen is None:
        claimed = chosen.publication.published.licence.spdx if chosen else "nothing"
        text = f"the policy names no licences; claimed: {claimed}"
        return Row("licence", "not-checked", text, 9, facts=conflict_facts(found))
    licence = chosen.publication.published.licence
    publisher = who(chosen.publication.publisher)
    facts = [Fact(licence.spdx, "claimed", publisher, chosen.publication.entry.digest)]
    if licence.text is not None:
        here = licence.text.digest in found.evidence.objects
        text = f"its text, sha256 {short(licence.text.digest)}, is {'here' if here else 'not here'}"
        facts.append(Fact(text, "verified here" if here else "stale or absent", evidence=licence.text.digest))
    facts += conflict_facts(found)
    if licence.spdx.lower() in policy.licences:
        return Row("licence", "pass", f"{licence.spdx}, as {publisher} claims", 9, facts=tuple(facts))
    return Row("licence", "fail", f"{licence.spdx} is not among those accepted", 9, "short", tuple(facts))
