"""`comity identify --require FILE`: may these files be loaded? Without a network, from what is kept."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from comity.trust.encoding import short
from comity.trust.frozen import frozen
from comity_client.local_verdict import LocalVerdict, check

from comity_cli.copies_view import date
from comity_cli.document import document
from comity_cli.output import Output, plural
from comity_cli.verdicts import SEVERE_KINDS

DAY = 86_400


@frozen
class CheckedPath:
    """The answer about a path. `evidence`: the folder whose evidence was judged; null if there is none. `cosigned_at`:
    since when enough cosigners have seen the publication, in seconds since 1970; null if too few have. `remembered`:
    nothing has changed since the verdict was made."""

    path: Path
    evidence: Path | None
    accepted: bool
    exit_status: int
    why: str
    cosigned_at: int | None
    remembered: bool
    verdict: Annotated[Mapping[str, object], {"$ref": "../verdict.json"}]

    @classmethod
    def of(cls, found: LocalVerdict) -> CheckedPath:
        state = (found.accepted, found.exit_status, found.why)
        return cls(found.path, found.evidence, *state, found.cosigned_at, found.remembered, found.verdict)


@document("local-verdicts")
class LocalVerdictsDocument:
    """Whether files may be loaded, as `comity identify --require FILE --json` prints it: each path by the evidence that
    is beside its files, without a network."""

    paths: tuple[CheckedPath, ...]
    exit_status: Annotated[int, "the worst of the paths: 0 accepted, 3, 4, 5, 8 as of comity verify"]


def show_local_verdicts(out: Output, paths: Sequence[Path], policy: Path, *, fresh: bool) -> int:
    """Print the answers; return the exit status."""
    found = [check(path, policy, fresh=fresh) for path in paths]
    status = min((each.exit_status for each in found if each.exit_status), default=0)
    for each in found:
        name = str(each.verdict["name"] or each.verdict["artifact"] or "")
        if each.accepted:
            out.done(f"{each.path}: {name} ({short(each.verdict['artifact'])}): accepted by {policy}; {_age(each)}")
        else:
            out.prose(
                f"{each.path}: {name}: {each.why}" if name else f"{each.path}: {each.why}",
                first=f"{out.mark('✗', 'red')} ",
            )
        for text in _warnings(each):
            out.warn(text)
    out.answer(LocalVerdictsDocument(tuple(map(CheckedPath.of, found)), status))
    for each in found:
        if each.evidence is None:
            out.hint(f"fetch the evidence, where there is a network: comity adopt {shlex.quote(str(each.path))}")
        elif not each.accepted:
            out.hint(f"comity verify {shlex.quote(str(each.evidence))} --policy {shlex.quote(str(policy))}")
    return status


def _warnings(found: LocalVerdict) -> list[str]:
    """The severe warnings in the evidence, whatever the policy says of them."""
    facts = [fact for row in found.verdict["rows"] if row["row"] == "disputes and advisories" for fact in row["facts"]]
    return [f"{fact['text']}, claimed by {fact['by']}" for fact in facts if fact["text"].startswith(SEVERE_KINDS)]


def _age(found: LocalVerdict) -> str:
    age = found.age(time.time())
    if age is None or found.cosigned_at is None:
        return "the evidence has too few cosigners, so its age is unknown"
    return f"evidence cosigned on {date(found.cosigned_at // DAY)}, {plural(int(age) // DAY, 'day')} ago"
