"""Checks a kit: from its evidence to the answers of its engine, each step only if those before it passed.

Nothing that depends on the missing network counts as passed where the system allows no network namespace: it is *not
checked*, whatever the engine answered. The evidence of a kit that was built here and not published is not checked
either, which leaves the result as it is.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.rules.kits.cases import MAX_CASES_FILE, KitCases
from comity.rules.kits.contents import kit_problems, lock_problems
from comity.rules.kits.description import IMAGE, LOCK, LOCK_FILE, SELFTEST_FILE, WHEEL, Kit
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Untrusted
from comity.trust.evidence import Evidence, EvidenceReader, FoundFile, Verdict
from comity.trust.exit_statuses import MEANINGS
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.verify import verify
from comity.verifier import collect_evidence

from comity_client.kits.asking import CASE_SECONDS, ask_cases
from comity_client.kits.engine import running_engine
from comity_client.kits.image import IMAGE_FILE, ImageParts, image_problems, read_base
from comity_client.kits.install import InstalledKit, install_kit
from comity_client.kits.lock import MAX_LOCK, parse_lock
from comity_client.kits.reading import read_kit
from comity_client.pull.model_sig import keyless_for

PASSED, FAILED, NOT_CHECKED, PARTIAL = "passed", "failed", "not checked", "partial"
EVIDENCE, PARTS, LOCKED, INSTALL, ENGINE, SELFTEST = "evidence", "parts", "lock", "install", "engine", "self-test"
MADE: Final = "image"
CHECKS: Final = (EVIDENCE, PARTS, LOCKED, MADE, INSTALL, ENGINE, SELFTEST)
"""In the order in which they are done; `image` only of a kit that names the base of its image."""
MAX_SHOWN: Final = 3
"""Problems that an error names."""


@frozen
class KitFolder:
    """A folder with a kit, and what it says that it has. Nothing was compared yet."""

    folder: Path
    kit: Kit
    digest: Digest

    @classmethod
    def read(cls, folder: Path) -> KitFolder:
        """Raises NotFound if there is no `kit.json`, Malformed."""
        kit = read_kit(folder)
        return cls(folder, kit, sha256(kit.encode()))

    @property
    def size(self) -> int:
        """Bytes of all its parts."""
        return sum(part.size for part in self.kit.parts)

    def problems(self, files: Iterable[FoundFile]) -> tuple[str, ...]:
        """What of the files that were found is not as `kit.json` says, a line for each; empty if all is."""
        entries, problems = list[FileEntry](), list[str]()
        for each in files:
            if each.kind != "file" or each.sha256 is None:
                problems.append(f"{each.path} is {'a link out of the folder' if each.kind == 'link' else 'no file'}")
            else:
                entries.append(FileEntry(each.path, each.size, each.sha256))
        return (*problems, *kit_problems(self.kit, Manifest.of(entries)))

    def lock_problems(self) -> tuple[str, ...]:
        """What of the lock is not among the wheels, or the reverse. Raises Malformed (KIT-LOCK)."""
        if not self.kit.of_kind(LOCK):
            return ()
        locked = parse_lock(read_bounded(self.folder / LOCK_FILE, MAX_LOCK))
        return lock_problems(self.kit, {digest: each.title for each in locked for digest in each.wheels})

    def image_problems(self) -> tuple[str, ...]:
        """What of the image is not as the base that the kit names and its other parts give it. Raises Malformed
        (KIT-IMAGE)."""
        wheels = tuple(part.path for part in self.kit.of_kind(WHEEL))
        base = read_base(self.folder / IMAGE_FILE)
        parts = ImageParts(self.kit.name, base, self.kit.engine, self.folder, wheels)
        found = {part.path.removeprefix(f"{IMAGE}/"): part.sha256 for part in self.kit.of_kind(IMAGE)}
        return image_problems(parts, found)

    def cases(self, file: str) -> KitCases:
        """The cases of `selftest.json` or `samples.json`. Raises NotFound, Malformed."""
        return KitCases.parse(read_bounded(self.folder / file, MAX_CASES_FILE))


def hash_kit(
    folder: Path, on_hashed: Callable[[int], None] = lambda count: None, reader: EvidenceReader | None = None
) -> Evidence:
    """All files of the folder with their hashes, and the evidence beside them. Blocking. Raises NotFound, Unavailable,
    Malformed as `verifier.collect_evidence` does."""
    return collect_evidence(folder, workers=os.cpu_count() or 1, on_hashed=on_hashed, reader=reader)


def judge_kit(evidence: Evidence, policy: Policy, reader: EvidenceReader | None = None) -> Verdict:
    """Judge the artifact by the evidence beside the files. Blocking; no network, no clock."""
    return verify(evidence, policy, keyless=keyless_for(policy), reader=reader)


def why_not(verdict: Verdict) -> str:
    """Why a verdict does not accept: its status in words, and the first row that the policy requires and lacks."""
    lacking = (row for row in verdict.rows if row.name in verdict.required and row.state != "pass")
    first = next((f": {row.name}: {row.summary}" for row in lacking), "")
    return f"{MEANINGS[verdict.exit_status]}{first}"


def require_whole(found: KitFolder, evidence: Evidence) -> None:
    """Compare all files of a kit, as `hash_kit` found them, with its description, before any of it is run. Raises
    Untrusted (KIT-PARTS), Malformed (KIT-LOCK)."""
    problems = (*found.problems(evidence.files or ()), *found.lock_problems())
    if problems:
        hint = f"comity kit check {shlex.quote(str(found.folder))}"
        raise Untrusted("the kit is not whole", why=in_words(problems), hint=hint, code="KIT-PARTS")


def in_words(problems: Sequence[str]) -> str:
    """The first problems in one line, and how many more there are."""
    more = f"; and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
    return "; ".join(problems[:MAX_SHOWN]) + more


@frozen
class CheckedRow:
    """What one check found: `state` is passed, failed, or not checked."""

    name: str
    state: str
    summary: str


@frozen
class KitChecked:
    """What a check found. `kit` is the SHA-256 of `kit.json`, `artifact` that of the manifest beside it, where there is
    one; `at` in POSIX seconds."""

    name: str
    kit: Digest
    artifact: Digest | None
    rows: tuple[CheckedRow, ...]
    at: int

    @property
    def state(self) -> str:
        """failed, partial if something could not be checked here, else passed."""
        states = {row.state for row in self.rows if row.name != EVIDENCE or row.state == FAILED}
        return FAILED if FAILED in states else PARTIAL if NOT_CHECKED in states else PASSED


@frozen
class CheckOptions:
    """How a kit is checked: by which policy, with which cache of installations, and how long one answer may take."""

    policy: Policy
    cache: Path
    seconds: float = CASE_SECONDS
    on_row: Callable[[CheckedRow], None] = lambda row: None
    on_hashed: Callable[[int], None] = lambda count: None


async def check_kit(folder: Path, options: CheckOptions) -> KitChecked:
    """Check the kit in `folder`. Raises NotFound if there is none, Malformed if its description is none, Unavailable if
    a file cannot be read."""
    found, reader = KitFolder.read(folder), EvidenceReader()
    evidence = await asyncio.to_thread(hash_kit, folder, options.on_hashed, reader)
    checking = _Checking(found, options)
    artifact = await checking.evidence(evidence, reader)
    checking.files(evidence)
    await checking.image()
    await checking.engine()
    return KitChecked(found.kit.name, found.digest, artifact, tuple(checking.rows), int(time.time()))


class _Checking:
    """The rows of one check, as they come."""

    def __init__(self, found: KitFolder, options: CheckOptions) -> None:
        self._found, self._options = found, options
        self.rows: list[CheckedRow] = []

    def _row(self, name: str, state: str, summary: str) -> None:
        self.rows.append(CheckedRow(name, state, summary))
        self._options.on_row(self.rows[-1])

    @property
    def _failed(self) -> str:
        """The first check that failed; empty if none has."""
        return next((row.name for row in self.rows if row.state == FAILED), "")

    async def evidence(self, evidence: Evidence, reader: EvidenceReader) -> Digest | None:
        """Judge the artifact by the evidence beside it; returns its digest."""
        if evidence.manifest is None:
            self._row(EVIDENCE, NOT_CHECKED, "none is beside the files: the kit was built here, or copied without it")
            return None
        judged = await asyncio.to_thread(judge_kit, evidence, self._options.policy, reader)
        title = judged.name or f"sha256:{judged.artifact}"
        state = PASSED if judged.accepted else FAILED
        self._row(EVIDENCE, state, f"{title}: {'accepted' if judged.accepted else why_not(judged)}")
        return judged.artifact

    def files(self, evidence: Evidence) -> None:
        """Compare parts and lock."""
        kit = self._found.kit
        problems = self._found.problems(evidence.files or ())
        whole = f"{len(kit.parts)} parts, {self._found.size} bytes, each with its digest, and no other file"
        self._row(PARTS, FAILED if problems else PASSED, in_words(problems) or whole)
        if self._after(LOCKED):
            return
        try:
            problems = self._found.lock_problems()
        except ComityError as error:
            problems = (str(error),)
        self._row(LOCKED, FAILED if problems else PASSED, in_words(problems) or "names the wheels, and no other")

    async def image(self) -> None:
        """Make the image of the kit again, and compare it."""
        kit = self._found.kit
        if IMAGE_FILE not in kit.by_path or self._after(MADE):
            return
        try:
            problems = await asyncio.to_thread(self._found.image_problems)
        except ComityError as error:
            problems = (error.why or error.what,)
        size = sum(part.size for part in kit.of_kind(IMAGE))
        made = f"{size} bytes, equal to what its base, wheels and engine give"
        self._row(MADE, FAILED if problems else PASSED, in_words(problems) or made)

    async def engine(self) -> None:
        """Install, start and ask it."""
        if self._after(INSTALL, ENGINE, SELFTEST):
            return
        found, options = self._found, self._options
        try:
            installed = await asyncio.to_thread(install_kit, found.folder, found.kit, options.cache)
        except ComityError as error:
            self._row(INSTALL, FAILED, error.why or error.what)
            self._after(ENGINE, SELFTEST)
            return
        self._row(INSTALL, PASSED if installed.isolated else NOT_CHECKED, _installed(installed))
        try:
            await self._asked(installed)
        except ComityError as error:
            self._row(ENGINE, FAILED, error.why or error.what)
            self._after(SELFTEST)

    async def _asked(self, installed: InstalledKit) -> None:
        found, options = self._found, self._options
        cases = found.cases(SELFTEST_FILE).cases
        async with running_engine(found.folder, found.kit, installed) as running:
            state = PASSED if running.isolated else NOT_CHECKED
            self._row(ENGINE, state, f"ready in {running.ready_seconds:.1f} s, in {running.proof}")
            results = await ask_cases(running.base_url, cases, seconds=options.seconds)
        said = f"{results.passed} of {len(results.results)} answers as expected"
        if results.failed:
            first = results.failed[0]
            self._row(SELFTEST, FAILED, f"{said}; {first.name}: {in_words(first.problems)}")
        else:
            self._row(SELFTEST, state, said)

    def _after(self, *names: str) -> bool:
        """Whether a check has failed, without which the checks `names` say nothing: then they are not checked."""
        if failed := self._failed:
            for name in names:
                self._row(name, NOT_CHECKED, f"{failed} failed")
        return bool(failed)


def _installed(installed: InstalledKit) -> str:
    before = "installed before" if installed.reused else "installed"
    again = ", because what was installed before had changed" if installed.changed else ""
    return f"{before} from its own wheels in {installed.proof}{again}"
