"""A policy file: its tables, each read by the file of its topic."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Final

from comity.trust.digest import Digest, parse_digest, sha256
from comity.trust.policy.cosigners import check_reachable, read_cosigners
from comity.trust.policy.documents import read_documents
from comity.trust.policy.freshness import read_freshness
from comity.trust.policy.lineage import read_lineage
from comity.trust.policy.lines import Lines
from comity.trust.policy.model_signing import read_model_signing
from comity.trust.policy.pins import read_pin
from comity.trust.policy.publishers import read_publishers
from comity.trust.policy.required import check_required, read_required
from comity.trust.policy.safety import read_safety
from comity.trust.policy.table import Table, wrong
from comity.trust.policy.upstream import read_upstream
from comity.trust.policy.values import Policy

SCHEMA: Final = "comity/policy/v1"
MAX_BYTES: Final = 1024 * 1024


def parse_policy(text: bytes, read: Callable[[str], bytes]) -> Policy:
    """Read a policy file.

    Args:
        text: the TOML.
        read: gives the bytes of a file that the policy names: a federation file, keys; may raise NotFound.

    Raises Malformed for unknown keys (with a guess what was meant) and values; Untrusted for a pin that does not hold.
    """
    if len(text) > MAX_BYTES:
        raise wrong("policy", f"more than {MAX_BYTES} bytes")
    try:
        decoded = text.decode("utf-8")
        document = Table(tomllib.loads(decoded), "policy", Lines(decoded))
    except (ValueError, RecursionError) as error:
        raise wrong("policy", f"not TOML: {str(error)[:200]}") from error
    if document.take("schema", str, SCHEMA) != SCHEMA:
        raise wrong("policy", f"schema must be {SCHEMA!r}")
    publishers = read_publishers(document.table("publishers"))
    pinned = document.take("pin", list, [])
    pins = tuple(read_pin(Table(item, "policy.pin", document.lines), read) for item in pinned)
    cosigners, rows = document.table("cosigners"), document.table("rows")
    policy = Policy(
        pins=pins,
        publishers=publishers.accept,
        bindings=publishers.names,
        rotations=publishers.rotations,
        cosigners=read_cosigners(cosigners, pins),
        licences=_licences(document.table("licences")),
        refuse_from=_issuers(document.table("advisories")),
        freshness=read_freshness(document.table("time")),
        lineage=read_lineage(document.table("lineage")),
        model_signing=read_model_signing(document.table("model_signing"), read),
        safety=read_safety(document.table("safety")),
        upstream=read_upstream(document.table("upstream"), pins),
        documents=read_documents(document.table("documents")),
        require=read_required(rows),
        digest=sha256(text),
    )
    document.done()
    check_required(policy, rows)
    if "cosigners" in policy.require:
        check_reachable(policy.cosigners, pins, cosigners)
    return policy


def _licences(table: Table) -> frozenset[str]:
    accepted = frozenset(item.lower() for item in table.strings("accept"))
    table.done()
    return accepted


def _issuers(table: Table) -> frozenset[Digest]:
    issuers = frozenset(table.each("refuse_from", parse_digest))
    table.done()
    return issuers
