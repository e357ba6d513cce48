"""Signatures beside files: reports, continuity plans and drill reports.

The signature of `r.json` is `r.json.intoto.jsonl`, an in-toto bundle with one envelope per line: the inception and
rotations of the signer and one statement about the file, as in a log. Both can be checked offline. What the statement
says of the file is compared by the module of the file's kind. A valid signature alone proves nothing: the signer must
also be known to the reader (`known_signer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, PolicyNotMet, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, check_inception
from comity.trust.key_validity import judge_keys
from comity.trust.names import Abbreviation, parse_id
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statement_kinds import INCEPTION

from comity_client.publishers import Publisher
from comity_client.trust_store import Bindings, TrustPin

SUFFIX: Final = ".intoto.jsonl"
MAX_LINES: Final = 64
MIN_PREFIX: Final = 16
"""Minimum number of digits of an abbreviated id."""


@frozen
class FileSignature:
    """A statement with a valid signature by its author. `signer` is not yet known to be trusted."""

    entry: Entry
    signer: Inception
    chain: RotationChain


def signature_path(file: Path) -> Path:
    """Return the path of the signature of a file."""
    return file.with_name(file.name + SUFFIX)


def write_signature(file: Path, publisher: Publisher, entry: Entry) -> None:
    """Write the signature of `file` beside it. Raises OutOfSpace, Unavailable."""
    data = b"".join(line + b"\n" for line in (*publisher.lines, entry.line))
    durable.write_file(signature_path(file), data, mode=0o644, point="signature")


def read_signature(file: Path, predicate: str, hint: str) -> FileSignature:
    """Read and verify the signature of `file`, a statement of the kind `predicate`. `hint` says how one is made.

    Raises NotFound, Malformed, and Untrusted (SIGNATURE).
    """
    path = signature_path(file)
    try:
        bundle = read_bounded(path, MAX_LINES * (MAX_LINE + 1))
    except NotFound as error:
        raise NotFound(f"{file} is not signed", why=f"there is no {path.name}", hint=hint) from error
    return parse_signature(bundle, predicate)


def parse_signature(bundle: bytes, predicate: str) -> FileSignature:
    """Raises Malformed, and Untrusted (SIGNATURE)."""
    lines = bundle.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_LINES:
        raise Malformed("signature is malformed", why=f"more than {MAX_LINES} lines")
    entries = [parse_entry(line) for line in lines]
    said = [entry for entry in entries if entry.statement.predicate == predicate]
    if len(said) != 1:
        raise Malformed("signature is malformed", why=f"{len(said)} {predicate} statements instead of one")
    by = said[0].statement.author(predicate).id
    known = [check_inception(entry) for entry in entries if entry.statement.predicate == INCEPTION]
    signer = next((inception for inception in known if inception.id == by), None)
    if signer is None:
        raise Untrusted("signature refused", why=f"the inception of {by[:12]} is missing", code="SIGNATURE")
    chain = follow(KeyState.of_inception(signer), entries)
    if not chain.signed(said[0].envelope):
        raise Untrusted("signature refused", why="not signed by the keys of its author", code="SIGNATURE")
    return FileSignature(said[0], signer, chain)


def known_signer(
    signature: FileSignature, by: str, own: Sequence[Publisher], pins: Sequence[TrustPin], bindings: Bindings
) -> str:
    """Require that the signer is `by` (an id, or 16 or more of its digits); if that is empty, that this user trusts the
    signer: own identities, bindings, members and publishers of the pinned charters. Returns how the signer is known.

    Raises Malformed for `by`, PolicyNotMet (REPORT-SIGNER).
    """
    _check_keys(signature, bindings)
    identity = signature.signer.id
    if by:
        given = Abbreviation.parse(by)
        if given is not None and len(given.head + given.tail) < MIN_PREFIX:
            why = f"an id has 64 digits, at least {MIN_PREFIX} are needed"
            raise Malformed(f"{by!r} is too short", why=why, code="BAD-ID")
        if not (given.matches(identity) if given else parse_id(by) == identity):
            raise _unknown(f"it is signed by {identity}, not by {by}")
        return "the signer that you named"
    known = next(_roles(identity, own, pins, bindings), None)
    if known is None:
        display = signature.signer.display
        raise _unknown(f"{display} [{identity}] is not an own identity, not bound, and not a pinned member")
    return known


def _check_keys(signature: FileSignature, bindings: Bindings) -> None:
    """Refuse keys that a pinned rotation retired: offline, nothing proves that the signature was logged before."""
    pinned = bindings.rotations.get(signature.signer.id)
    kept = judge_keys(signature.entry, signature.chain, pinned, (), {}, EvidenceReader())
    if not kept.accepted:
        raise _unknown(kept.text)


def _roles(identity: Digest, own: Sequence[Publisher], pins: Sequence[TrustPin], bindings: Bindings) -> Iterator[str]:
    yield from (f"your own identity {each.label}" for each in own if each.id == identity)
    yield from (f"bound by you to {name}" for name, bound in bindings.publishers.items() if bound == identity)
    for pin in pins:
        body = pin.federation.body
        seat = body.member(identity)
        if seat is not None:
            yield f"member {seat.name} ({seat.jurisdiction}) of a pinned charter"
        yield from (
            f"publisher of {name} in a pinned charter" for name, who in body.namespaces.items() if who == identity
        )


def _unknown(why: str) -> PolicyNotMet:
    hint = "repeat with --by ID   # the id of the signer, from another channel"
    return PolicyNotMet(
        "the signature is valid, but its signer is not known here", why=why, hint=hint, code="REPORT-SIGNER"
    )
