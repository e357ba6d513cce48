"""Vouch for an artifact; announce an evaluation of it, and log the results.

A vouch for *rehashed* is signed only after the bytes were hashed here.

The criteria of an evaluation are a TOML file that a person writes. `read_criteria` adds a random nonce and makes the
document whose digest is announced; the document is kept in a file of its own until the results are logged, because
without it nobody can show what was announced.
"""

from __future__ import annotations

import asyncio
import secrets
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from comity.rules.collector import Collector
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evaluation import CRITERIA, EvaluationAnnounced, EvaluationCriteria, EvaluationResults
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.statement import Author, SideObject
from comity.trust.statements import Vouched

from comity_client.events import OnEvent, Progress, in_thread
from comity_client.evidence.collect import collect
from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.proofs import fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.identity_signer import IdentitySigner
from comity_client.publish import LogTargets, PublishReceipt, publish_statement
from comity_client.pull.destinations import LocalCopy, hash_local_copy

REHASHED = "rehashed"
REPRODUCED = "reproduced"


@frozen
class VouchDetails:
    """The kind of a vouch, its text, and an optional document. `built`: a folder with what the signer built; its bytes
    must be those of the artifact."""

    statement: str
    text: str = ""
    document: bytes | None = None
    built: Path | None = None


async def vouch(
    targets: LogTargets,
    what: Path | str,
    details: VouchDetails,
    signer: IdentitySigner,
    *,
    resolve: Callable[[str], Awaitable[Resolution]],
    policy: Policy,
    workers: int,
) -> PublishReceipt:
    """Log a vouch about the folder or reference `what`.

    Raises as `hash_local_copy` does if the bytes are required but are not here, or do not match their manifest: a
    folder is always hashed, a reference only for *rehashed*. Raises Refused (NOT-A-SIGNER) if too few keys of a member
    are here. Else raises as `resolve` and `publish_folder` do.
    """
    signer.require_complete()
    artifact, title = await _subject(targets, what, details.statement, resolve, policy, workers)
    if details.built is not None:
        await _require_same(targets, details.built, artifact, title, workers)
    document = SideObject.of(details.document) if details.document is not None else None
    said = Vouched(Author("identity", signer.identity), artifact, details.statement, details.text, document)
    entry = await asyncio.to_thread(sign_content, said, *signer.signers)
    objects = {} if details.document is None else {sha256(details.document): details.document}
    return await publish_statement(targets, title, entry, signer.lines, objects)


async def _subject(
    targets: LogTargets,
    what: Path | str,
    statement: str,
    resolve: Callable[[str], Awaitable[Resolution]],
    policy: Policy,
    workers: int,
) -> tuple[Digest, str]:
    """Return the artifact and its title. A node must know the artifact, because a statement about unknown bytes is
    useless."""
    if isinstance(what, Path) or Path(what).is_dir():
        here = await _hashed(what, workers, targets.on_event)
        await collect(Inquiry(targets.session, policy), Collector(here.artifact, policy))
        return here.artifact, here.title
    resolution = await resolve(what)
    if statement == REHASHED:
        here = await _hashed(f"sha256:{resolution.artifact}", workers, targets.on_event)
        assert here.artifact == resolution.artifact
    return resolution.artifact, resolution.title


async def _require_same(targets: LogTargets, built: Path, artifact: Digest, title: str, workers: int) -> None:
    """Raises Untrusted (NOT-REBUILT), with a file that differs, unless the folder has the bytes of the artifact."""
    here = (await _hashed(built, workers, targets.on_event)).manifest
    if here.digest == artifact:
        return
    published = Manifest.parse(await fetch_object(targets.session, artifact))
    files = {
        path: (here.by_path.get(path), published.by_path.get(path)) for path in (*here.by_path, *published.by_path)
    }
    different = sorted(path for path, (own, theirs) in files.items() if own != theirs)
    own, theirs = files[different[0]]
    how = "is only in your folder" if theirs is None else "is not in your folder" if own is None else "has other bytes"
    raise Untrusted(
        f"{built} is not {title}",
        why=f"{different[0]} {how}" + (f", and {len(different) - 1} more differ" if len(different) > 1 else ""),
        hint="compare the commit, the lock and the versions of the tools; nothing was logged",
        code="NOT-REBUILT",
    )


async def _hashed(what: Path | str, workers: int, on_event: OnEvent) -> LocalCopy:
    relay = str(what)
    return await in_thread(
        lambda report: hash_local_copy(what, workers=workers, on_hashed=lambda n: report(Progress(relay, n))), on_event
    )


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
    entry = await asyncio.to_thread(sign_content, said, *signer.signers)
    return await publish_statement(targets, resolution.title, entry, signer.lines)


def _refused(why: str) -> Malformed:
    return Malformed("not valid criteria or results", why=why, hint="comity evaluation new", code="CRITERIA")
