"""Attacks by one member that writes false statements about copies into its own log: holds, audits, and what
is wanted.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence

from attackers.attacker import Target, attacker
from attackers.forging import Author, Holder, RawKey, canonical, sha256, signed, statement

INVENTED = [sha256(b"no artifact %d" % number) for number in range(1_000)]
NOBODY = Holder({"node": "2" * 64}, (RawKey.of_seed("no node"),))


def about(author: Author, predicate: str, artifacts: Sequence[str], body: Mapping[str, object]) -> bytes:
    """A statement about several artifacts."""
    said = json.loads(statement(predicate, author.by, ("", artifacts[0]), body))
    subjects = [{"digest": {"sha256": artifact}, "name": ""} for artifact in artifacts]
    return signed(canonical(said | {"subject": subjects}), author.keys)


def wanted(author: Author, artifact: str, copies: int = 200, label: str = "") -> bytes:
    return author.say("wanted", (label, artifact), {"copies": copies, "jurisdictions": 1, "reaches": 1})


def holds(author: Author, artifacts: Sequence[str], records: int | None = None) -> bytes:
    """One claim of many copies; `records` that do not match the artifacts make it malformed."""
    pieces = b"\x00\x00\x01\x00" + bytes(32)
    count = len(artifacts) if records is None else records
    body = {"manifests": [100] * len(artifacts), "pieces": base64.b64encode(pieces * count).decode()}
    return about(author, "holds", artifacts, body)


def ended(author: Author, artifact: str, index: int) -> bytes:
    """The withdrawal of the claim at `index` of the own log."""
    body = {"basis": "", "forced": False, "hold": index, "kept": False, "reason": "space"}
    return author.say("hold-withdrawn", ("", artifact), body)


def failed(author: Author, artifact: str, node: str, day: int, answer: str | None = None) -> bytes:
    """A failed audit, with an answer that `node` did not sign, or with none."""
    found = {"answer": answer, "index": sha256(b"index"), "lease": 0, "node": node, "nonce": sha256(b"%d" % day),
             "numbers": [0], "piece": None, "reason": "digest", "time": day * 86_400}  # fmt: skip
    return author.say("audited", ("", artifact), {"failed": found})


def missed(author: Author, artifacts: Sequence[str], nodes: Sequence[str], day: int) -> bytes:
    """Unanswered audits of all copies of a day."""
    results = [[artifact, node, 0, 0, 9] for artifact in range(len(artifacts)) for node in range(len(nodes))]
    body = {"answers": 0, "day": day, "nodes": nodes, "results": results, "root": "0" * 64}
    return about(author, "audited", artifacts, body)


@attacker(
    "wanted statements about every artifact, and about a thousand that do not exist",
    by="member",
    emits=lambda: [wanted(NOBODY, "0" * 64), wanted(NOBODY, "0" * 64, copies=1 << 40)],
)
def endless_wishes(target: Target) -> None:
    node = target.member.node
    target.member.say(*(wanted(node, artifact, label=str(n)) for artifact in target.known.artifacts for n in range(50)))
    target.member.say(*(wanted(node, artifact) for artifact in INVENTED))
    for index, artifact in enumerate(INVENTED[:200]):
        target.member.say(node.say("wanted-withdrawn", ("", artifact), {"reason": "met", "wanted": index}))


@attacker(
    "one claim of many copies that its node does not have",
    by="member",
    emits=lambda: [holds(NOBODY, INVENTED[:64]), holds(NOBODY, INVENTED[:2], records=1)],
)
def false_claims_of_many(target: Target) -> None:
    """Well-formed claims, withdrawals of others' claims, and malformed claims."""
    node, artifacts = target.member.node, sorted(target.known.artifacts)
    if len(artifacts) > 1:
        target.member.say(holds(node, artifacts), holds(node, artifacts[::-1]), holds(node, artifacts, records=0))
    batches = [sorted(INVENTED[at : at + 64]) for at in range(0, len(INVENTED), 64)]
    target.member.say(*(holds(node, batch) for batch in batches))
    for artifact in artifacts:
        target.member.say(*(ended(node, artifact, at) for at in range(20)))


@attacker(
    "failed audits of all copies of the others, for past weeks and from tomorrow",
    by="member",
    emits=lambda: [failed(NOBODY, "0" * 64, "1" * 64, 1, answer="{}"), missed(NOBODY, ["0" * 64], ["1" * 64], 1)],
)
def false_audits(target: Target) -> None:
    node, artifacts = target.member.node, list(target.known.artifacts)
    nodes = [victim.node for victim in target.victims]
    today = int(time.time()) // 86_400
    for day in (*range(today - 20, today + 20), 1 << 40):
        target.member.say(*(failed(node, artifact, other, day) for artifact in artifacts for other in nodes))
        target.member.say(missed(node, artifacts, nodes, day))
    target.member.say(*(failed(node, artifact, nodes[0], today, answer="{}") for artifact in artifacts))
