"""Announce an evaluation and log its results: the criteria as a person writes them, and the statements.

The criteria are a TOML file. `read_criteria` adds a random nonce and makes the document whose digest is announced; the
document is kept in a file of its own until the results are logged, because without it nobody can show what was
announced.
"""

from __future__ import annotations

import asyncio
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.evaluation import CRITERIA, EvaluationAnnounced, EvaluationCriteria, EvaluationResults, sign_announced
from comity.trust.statement import Author
from comity_client.evidence.resolve import Resolution
from comity_client.identity_signer import IdentitySigner
from comity_client.publish import LogTargets, PublishReceipt, publish_statement

MAX_TOML: Final = 262_144
TEMPLATE: Final = """\
# Criteria of an evaluation. `comity evaluation announce REF --criteria FILE` logs their digest, before you have a
# result. They stay secret until `comity evaluation report` logs the results.

# The suite, and the number of samples.
suite = "refusals"
suite_version = "1.0"
samples = 500
# SHA-256 of the data set; leave it out if the data must stay secret.
# dataset = ""
# The program that measures.
harness = ""
harness_version = ""

# What the model has to reach: one table for each metric. Comparators: >= > <= <. Thresholds are texts.
[[claims]]
metric = "refusal_rate"
comparator = ">="
threshold = "0.98"
"""
_NAMES: Final = frozenset({"suite", "suite_version", "samples", "dataset", "harness", "harness_version", "claims"})


def read_criteria(data: bytes) -> EvaluationCriteria:
    """Read criteria from TOML, with a new nonce. Raises Malformed (CRITERIA)."""
    try:
        if len(data) > MAX_TOML:
            raise _refused(f"it has more than {MAX_TOML} bytes")
        given: dict[str, Any] = tomllib.loads(data.decode())
        if unknown := sorted(set(given) - _NAMES):
            raise _refused(f"{unknown[0][:60]!r} is not known; {', '.join(sorted(_NAMES))} are")
        return EvaluationCriteria.from_json(
            {
                "schema": CRITERIA,
                "suite": {"name": given.get("suite"), "version": given.get("suite_version", "")},
                "dataset": given.get("dataset") or None,
                "samples": given.get("samples"),
                "harness": {"name": given.get("harness", ""), "version": given.get("harness_version", "")},
                "nonce": secrets.token_hex(16),
                "claims": given.get("claims"),
            }
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(f"not TOML: {error}") from error
    except ComityError as error:
        raise error if error.code == "CRITERIA" else _refused(str(error)) from error


def results_of(criteria: EvaluationCriteria, values: Sequence[str], at: int) -> EvaluationResults:
    """The results from texts `METRIC=VALUE`, one for each metric of the criteria. Raises Malformed (CRITERIA)."""
    given: dict[str, str] = {}
    for text in values:
        metric, equals, value = text.rpartition("=")
        if not equals or metric in given:
            raise _refused(f"{text[:60]!r} is not METRIC=VALUE, each metric once")
        given[metric] = value
    return _results(criteria, given, at)


def _results(criteria: EvaluationCriteria, given: Mapping[str, str], at: int) -> EvaluationResults:
    metrics = [threshold.metric for threshold in criteria.thresholds]
    if different := sorted(set(metrics) ^ set(given)):
        known = different[0] in metrics
        raise _refused(f"metric {different[0][:60]!r} {'has no value' if known else 'is not in the criteria'}")
    made = EvaluationResults(criteria, tuple(given[metric] for metric in metrics), at)
    try:
        return EvaluationResults.parse(made.encode())
    except Malformed as error:
        raise _refused(str(error)) from error


async def announce(
    targets: LogTargets, resolution: Resolution, criteria: Digest, signer: IdentitySigner
) -> PublishReceipt:
    """Log the announcement. Raises Refused (NOT-A-SIGNER) if too few keys of a member are here, and as `publish`."""
    signer.require_complete()
    said = EvaluationAnnounced(Author("identity", signer.identity), resolution.artifact, criteria)
    entry = await asyncio.to_thread(sign_announced, said, *signer.signers)
    return await publish_statement(targets, resolution.title, entry, signer.lines)


def _refused(why: str) -> Malformed:
    return Malformed("not valid criteria or results", why=why, hint="comity evaluation new", code="CRITERIA")
