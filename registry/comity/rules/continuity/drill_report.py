"""The drill report: what happened when a service was cut off on purpose, as a document. RFC 8785 JSON.

    {"asked":["node-es"],"before":"node-es/log\\n57\\n…\\n\\n— node-es/log …\\n","cut_off":["reach:CH"],
     "ended":"2026-12-01T20:31:02Z","fallback":1,"findings":[{"basis":"unknown","by":"","link":"never-drilled",
     "said":"the service was never drilled with this kit","state":"amber"}],"isolation":"an empty network namespace",
     "kit":"demo/chat@v1","kit_artifact":"9f2c…","left_out":[{"because":"reach:CH","node":"node-ch"}],"link":"",
     "owner":"51aa…","passed":true,
     "phases":[{"began":0,"ended":812,"passed":true,"phase":"cut-off","said":"…"}],"plan":"77c0…","reason":"",
     "samples":{"asked":12,"failed":[],"passed":12},"schema":"comity/drill-report/v1","self_test":{…},
     "service":"chat","started":"2026-12-01T20:30:11Z","threshold":"0.9","tool":"0.9.0"}

The times of phases are milliseconds since `started`. `before` is a cosigned checkpoint that was fetched when the drill
began: nobody could write it before its cosigners signed, so the drill did not begin before (`check_times`). A
`drilled` statement signs the report and sums it up. Source: protocol, section 5.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Annotated, ClassVar, Final

from comity.rules.continuity.facts import BASES
from comity.rules.continuity.links import AMBER, RED, Link
from comity.rules.cosigned_times import AHEAD_SECONDS, corroborated_time, time_of_quorum
from comity.rules.parties import Party, parse_party
from comity.trust.codec import JsonItems, JsonNumber, JsonObject, JsonRead, JsonText, JsonTime, JsonWord
from comity.trust.content import ById, Content, Label, SideFile, SubjectDigest
from comity.trust.encoding import Digest, Fields, canonical, format_time, parse_canonical, printable
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, SideObject
from comity.trust.statement_kinds import DRILLED
from comity.trust.tlog.note import MAX_NOTE

SCHEMA: Final = "comity/drill-report/v1"
MAX_BYTES: Final = 2 * 1024 * 1024
MAX_PARTIES: Final = 64
MAX_NODES: Final = 500
MAX_CASES: Final = 10_000
MAX_FAILED: Final = 64
"""Names of failed cases that are listed; all are counted."""
MAX_SAID: Final = 1_000
MAX_NAME: Final = 200
MAX_FALLBACKS: Final = 16
MAX_FINDINGS: Final = 128
MAX_MILLISECONDS: Final = 31 * 24 * 3600 * 1000
LOG_SECONDS: Final = 24 * 3600
"""Seconds within which a report must be logged after its end; one that is logged later counts as back-dated."""
ROUNDING: Final = 2_000
"""Milliseconds by which times in whole seconds and times of phases may differ."""
LEAST_COSIGNERS: Final = 2
"""Members whose clocks prove a time: no one alone does."""

CUT: Final = "cut"
PLAN: Final = "plan"
DECLARE: Final = "declare"
PULL: Final = "pull"
VERIFY: Final = "verify"
CHECK: Final = "check"
INSTALL: Final = "install"
START: Final = "start"
SELF_TEST: Final = "self-test"
SAMPLES: Final = "samples"
SERVE: Final = "serve"
RESTORE: Final = "restore"
PHASES: Final = (CUT, PLAN, DECLARE, PULL, VERIFY, CHECK, INSTALL, START, SELF_TEST, SAMPLES, SERVE, RESTORE)
"""In their order."""
_PARTY: Final = re.compile(r"[a-z-]{1,32}(?::.{1,512})?\Z")
_LINK: Final = re.compile(r"[a-z][a-z-]{0,39}\Z")
_LINK_OR_NONE: Final = re.compile(r"(?:[a-z][a-z-]{0,39})?\Z")
_SHARE: Final = re.compile(r"(?:0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)?\Z")


def _share(text: str) -> str:
    if not _SHARE.match(text):
        raise Malformed("drill report is malformed", why="a threshold is a number from 0 to 1, such as 0.95")
    return text


def _link(text: str) -> str:
    """The name of a kind of link, or nothing. A later version may have other kinds."""
    if not _LINK_OR_NONE.match(text):
        raise Malformed("drill report is malformed", why="a link is named in small letters and hyphens")
    return text


@frozen
class DrillPhase(JsonObject):
    """A step of a drill; `began` and `ended` are milliseconds since the start."""

    phase: Annotated[str, JsonWord(PHASES)]
    began: Annotated[int, JsonNumber(0, MAX_MILLISECONDS)]
    ended: Annotated[int, JsonNumber(0, MAX_MILLISECONDS)]
    passed: bool
    said: Annotated[str, JsonText(MAX_SAID, 0), "What was done, or why it failed."]

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1000


@frozen
class CaseCounts(JsonObject):
    """How many cases were asked and passed, and the names of the first that failed."""

    asked: Annotated[int, JsonNumber(0, MAX_CASES)]
    passed: Annotated[int, JsonNumber(0, MAX_CASES)]
    failed: Annotated[tuple[str, ...], JsonItems(MAX_FAILED, of=JsonText(MAX_NAME))] = ()

    def reaches(self, threshold: str) -> bool:
        """Whether at least this share of the cases passed."""
        return self.asked > 0 and Fraction(self.passed, self.asked) >= Fraction(threshold or "0")


@frozen
class LeftOut(JsonObject):
    """A node that was not asked, and the cut party with which it is lost."""

    node: Annotated[str, JsonText(MAX_NAME)]
    because: Annotated[Party, JsonRead(parse_party, _PARTY)]


@frozen
class DrillFinding(JsonObject):
    """A link of the plan that did not hold when the drill began, as `comity continuity check` names it, and how that
    was known."""

    link: Annotated[str, JsonRead(_link, _LINK, most=40)]
    state: Annotated[str, JsonWord((AMBER, RED))]
    said: Annotated[str, JsonText(MAX_SAID)]
    basis: Annotated[str, JsonWord(BASES)]
    by: Annotated[str, JsonText(MAX_NAME, 0), "Who says it, if somebody does."]

    @classmethod
    def of(cls, link: Link) -> DrillFinding:
        said, by = printable(link.text)[:MAX_SAID], printable(link.by)[:MAX_NAME]
        return cls(link.kind, link.state, said, link.basis, by)


@frozen
class DrillReport(JsonObject):
    """What happened in a drill.

    Attributes:
        plan: SHA-256 of the plan file. `owner`: the identity that owns the plan.
        fallback: its number in the plan, from 1.
        cut_off: the parties that were cut off. `asked`, `left_out`: the nodes.
        isolation: what kept the engine from the network.
        threshold: the share of samples that the plan asks for; empty if it asks for none.
        before: a cosigned checkpoint, as its note; empty if no node that was asked gave one.
        findings: what of the plan did not hold when the drill began.
        link: the kind of link at which the drill failed; empty if it passed.
        reason: why the drill failed; empty if it passed.
    """

    constants: ClassVar = {"schema": SCHEMA}
    plan: Digest
    owner: Digest
    service: Annotated[str, JsonText(MAX_NAME)]
    fallback: Annotated[int, JsonNumber(1, MAX_FALLBACKS)]
    kit: Annotated[str, JsonText(MAX_NAME)]
    kit_artifact: Digest
    cut_off: Annotated[tuple[Party, ...], JsonItems(MAX_PARTIES, of=JsonRead(parse_party, _PARTY), once=True)]
    asked: Annotated[tuple[str, ...], JsonItems(MAX_NODES, of=JsonText(MAX_NAME))]
    left_out: Annotated[tuple[LeftOut, ...], JsonItems(MAX_NODES)]
    findings: Annotated[tuple[DrillFinding, ...], JsonItems(MAX_FINDINGS)]
    isolation: Annotated[str, JsonText(MAX_NAME, 0)]
    phases: Annotated[tuple[DrillPhase, ...], JsonItems(len(PHASES), 1)]
    self_test: CaseCounts
    samples: CaseCounts
    threshold: Annotated[str, JsonRead(_share, _SHARE, most=8, least=0)]
    passed: bool
    link: Annotated[str, JsonRead(_link, _LINK_OR_NONE, most=40, least=0)]
    reason: Annotated[str, JsonText(MAX_SAID, 0)]
    started: Annotated[int, JsonTime()]
    ended: Annotated[int, JsonTime()]
    before: Annotated[str, JsonText(MAX_NOTE, 0, lines=True)]
    tool: Annotated[str, JsonText(64), "The version of the program."]

    @classmethod
    def parse(cls, data: bytes) -> DrillReport:
        """Raises Malformed."""
        report = cls.read(Fields(parse_canonical(data, limit=MAX_BYTES, what="drill report"), "drill report"))
        report.check()
        return report

    def encode(self) -> bytes:
        """Raises Malformed for a report that could not be read again."""
        self.check()
        return canonical(self.to_json())

    def phase(self, name: str) -> DrillPhase | None:
        return next((each for each in self.phases if each.phase == name), None)

    @property
    def answered(self) -> int | None:
        """Seconds from the cut to the first verified answer, rounded up; None if there was none."""
        return self._seconds_until(SELF_TEST)

    @property
    def quality(self) -> int | None:
        """Seconds from the cut to the agreed quality, rounded up; None if it was not reached, or none was agreed."""
        return self._seconds_until(SAMPLES)

    def _seconds_until(self, name: str) -> int | None:
        start, found = self.phase(CUT), self.phase(name)
        return -(-(found.ended - start.began) // 1000) if start and found and found.passed else None

    def check(self) -> None:
        """Raises Malformed for members that do not fit together."""
        why = next(self._contradictions(), "")
        if why:
            raise Malformed("drill report is malformed", why=f"its members contradict each other: {why}")

    def _contradictions(self) -> Iterator[str]:
        order = [PHASES.index(each.phase) for each in self.phases]
        if any(after <= before for before, after in itertools.pairwise(order)):
            yield "its phases are not in their order, each once"
        edges = [time for each in self.phases for time in (each.began, each.ended)]
        if edges != sorted(edges):
            yield "its phases overlap"
        if self.ended < self.started or edges[-1] > (self.ended - self.started) * 1000 + ROUNDING:
            yield "its phases last longer than it does"
        if self.passed == bool(self.reason) or self.passed == bool(self.link):
            yield "it needs a reason and a link exactly if it failed"
        if self.passed and not (all(each.passed for each in self.phases) and self.answered is not None):
            yield "it passed without a verified answer, or although a phase failed"
        if self.passed and self.threshold and self.quality is None:
            yield "it passed without the agreed quality"
        for counts in (self.self_test, self.samples):
            if counts.passed + len(counts.failed) > counts.asked or (counts.failed == ()) != (
                counts.passed == counts.asked
            ):
                yield "its counts of cases do not fit together"
        if self.answered is not None and not self.self_test.reaches("1"):
            yield "its self-test passed without all answers"
        if self.quality is not None and not self.samples.reaches(self.threshold):
            yield "its samples passed with fewer answers than were agreed"


@frozen
class Drilled(Content):
    """An identity rehearsed the loss of a service, with this result. The report is the side object.

        {"answered":41,"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":3120}],"passed":true,
         "plan":"77c0…","quality":44,"report":{"digest":"0a1b…","size":3120},"service":"chat",
         "time":"2026-12-01T20:31:05Z"}

    All members except the time and the signer follow from the report (`check_drilled`). `answered` and `quality` are
    seconds from the cut to the first verified answer and to the agreed quality.
    """

    predicate: ClassVar = DRILLED
    by: ById
    kit: Label
    artifact: SubjectDigest
    time: Annotated[int, JsonTime(), "The time of signing, as the signer claims."]
    plan: Annotated[Digest, "SHA-256 of the continuity plan."]
    service: Annotated[str, JsonText(MAX_NAME)]
    passed: bool
    answered: Annotated[int | None, "Seconds from the cut to the first verified answer, or null."]
    quality: Annotated[int | None, "Seconds from the cut to the agreed quality, or null."]
    report: Annotated[SideObject, SideFile(MAX_BYTES)]


def summarise_drill(report: DrillReport, by: Digest, time: int) -> Drilled:
    """The summary of `report` by the identity `by` at `time`. Raises Malformed."""
    return Drilled(
        by=by,
        kit=report.kit,
        artifact=report.kit_artifact,
        time=time,
        plan=report.plan,
        service=report.service,
        passed=report.passed,
        answered=report.answered,
        quality=report.quality,
        report=SideObject.of(report.encode()),
    )


def check_drilled(entry: Entry, report: DrillReport) -> Drilled:
    """Return the content of a statement, whose signature is verified, if it agrees with `report`.

    Raises Malformed, and Untrusted with code DRILL-REPORT.
    """
    said = Drilled.parse(entry.statement)
    if SideObject.of(report.encode()) != said.report:
        raise _another("another report was signed")
    if said != summarise_drill(report, said.by, said.time):
        raise _another("the signed summary differs from the report")
    if said.time < report.ended:
        raise _wrong_time(f"it was signed at {format_time(said.time)}, before the drill ended")
    return said


@frozen
class DrillTimes:
    """Between which times a drill took place by the clocks of members; None where not enough cosigned."""

    begun_after: int | None
    logged_by: int | None


def check_times(report: DrillReport, before: Iterable[int], logged: Iterable[int]) -> DrillTimes:
    """Compare the times of a report with those of cosigners. Raises Untrusted (DRILL-TIME) for a report that is
    back-dated: its checkpoint was cosigned after it says that it began, or it was logged a day or more after it says
    that it ended; and for one that says it ended after it was logged.

    Args:
        before: for each member that cosigned the checkpoint in the report, the time.
        logged: for each member that cosigned a checkpoint with the logged statement, the first known time.
    """
    cosigned = tuple(before)
    begun_after = corroborated_time(cosigned, report.started) if len(cosigned) >= LEAST_COSIGNERS else None
    if begun_after is not None and begun_after > report.started + AHEAD_SECONDS:
        at = format_time(begun_after)
        raise _wrong_time(f"it says it began before the checkpoint that it contains was cosigned, at {at}")
    logged_by = time_of_quorum(logged, LEAST_COSIGNERS)
    if logged_by is not None and report.ended > logged_by + AHEAD_SECONDS:
        raise _wrong_time(f"it says it ended after it was logged, at {format_time(logged_by)}")
    if logged_by is not None and logged_by > report.ended + LOG_SECONDS:
        at = format_time(logged_by)
        raise _wrong_time(f"it was logged at {at}, more than a day after it says it ended")
    return DrillTimes(begun_after, logged_by)


def _another(why: str) -> Untrusted:
    return Untrusted("drill report refused", why=why, code="DRILL-REPORT")


def _wrong_time(why: str) -> Untrusted:
    return Untrusted("drill report refused", why=why, code="DRILL-TIME")
