"""A folder without evidence beside it: which artifact it is, by its files, and what a policy says of it with the
evidence that nodes have. Nothing is fetched but evidence, and nothing is written.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import Evidence, Verdict
from comity.trust.frozen import frozen

from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import manifests_of
from comity_client.identify.judging import gather_known
from comity_client.identify.lookup import ask_nodes
from comity_client.identify.match import FolderOf, MatchedFiles, match
from comity_client.pull.order import PullContext
from comity_client.pull.pull import Gathered, judge_of
from comity_client.session import Session

NAMED: Final = 3
"""Files of a kind that a text names."""


@frozen
class IdentifiedFolder:
    """A folder with the files of an artifact at their paths.

    Attributes:
        title: the artifact's name and version, or its digest.
        evidence: of nodes, and of a pack that was there, with the files of the folder as they were hashed.
        verdict: of the policy, about this evidence.
        asked, answered: nodes that were asked which artifacts have the files, and those that answered.
    """

    found: FolderOf
    gathered: Gathered
    evidence: Evidence
    verdict: Verdict
    asked: int
    answered: int

    @property
    def title(self) -> str:
        return self.gathered.resolution.title

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(map(str, self.gathered.alarms))

    @property
    def basis(self) -> str:
        """One line: how it was found, and what is missing or has other bytes."""
        here = f"{self.found.present} of {self.found.files} files are here"
        lists = (("missing", self.found.missing), ("other bytes", self.found.changed), ("extra", self.found.extra))
        differences = "; ".join(f"{what}: {some(paths)}" for what, paths in lists if paths)
        said = f"identified by its files; evidence fetched now from {self.answered} of {self.asked} nodes"
        return f"{said}; {here}; {differences}" if differences else said


@frozen
class VerifiedFolder:
    """The verdict about a folder without evidence, and what was found; or `why` it was not identified: the verdict is
    then about what is in the folder alone."""

    verdict: Verdict
    identified: IdentifiedFolder | None = None
    why: ComityError | None = None


def some(paths: Sequence[str]) -> str:
    """The first of some paths, and how many there are more."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(paths[:NAMED]) + more


async def identify_folder(session: Session, context: PullContext, folder: Path, here: Evidence) -> IdentifiedFolder:
    """Find the artifact of a folder, and judge it by the policy of `context`.

    Args:
        here: what is in the folder: its files, hashed and inspected.

    Raises NotFound (UNIDENTIFIED) if it is of no artifact that a node knows, and as `ask_nodes` and `gather` do.
    """
    files = [
        DiskFile(folder / each.path, each.size, each.sha256, identity=(0, number))
        for number, each in enumerate(here.files or ())
        if each.sha256 is not None
    ]
    claims = await ask_nodes(session, {each.sha256 for each in files if each.sha256 and each.size})
    manifests, _ = await manifests_of(session, claims, files)
    matched = match(files, manifests)
    found = next((each for each in matched.folders if each.folder == folder), None)
    answered = [each for each in claims.nodes if not each.problem]
    if found is None:
        raise _unidentified(folder, matched, len(files), all(each.complete for each in answered))
    gathered = await gather_known(context, found.artifact, folder)
    partly = bool(found.missing)
    evidence = gathered.evidence_with(here.files or (), partial=partly, model_sig=here.model_sig)
    verdict = judge_of(gathered.resolution)(evidence, context.inquiry.policy)
    return IdentifiedFolder(found, gathered, evidence, verdict, len(claims.nodes), len(answered))


def _unidentified(folder: Path, matched: MatchedFiles, files: int, complete: bool) -> NotFound:
    """What is known instead. `complete`: each node that answered says that it left nothing out."""
    what, hint = f"no published artifact is at {folder}", f"comity identify {shlex.quote(str(folder))}"
    if not files:
        why = "it has no file"
    elif matched.folders:
        below = matched.folders[0].folder
        why, hint = f"one is at {below}", f"comity verify {shlex.quote(str(below))}"
    elif matched.files:
        why = f"{len(matched.files)} of {files} files are of published artifacts, where they are in other places"
    elif complete:
        why = f"no node knows any of its {files} files"
    else:
        why = f"none of its {files} files was found, and a node has not read all its logs or cut its answer"
    return NotFound(what, why=why, hint=hint, code="UNIDENTIFIED")
