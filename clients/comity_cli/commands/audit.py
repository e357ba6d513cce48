"""`comity audit run|challenge|answer|check|ls`: test the copies of others, and show who tested which copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from comity.rules.copy_counts import MISSED, PASSED, AuditResult
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.copies_view import artifact_of, date, of_a_node, of_own_node, outcome_text, read_list, socket_of
from comity_cli.document import ABSENT, INLINE, Absent, document
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity.wire.audit import CheckedCopy

NEW_FILE = click.Path(path_type=Path, dir_okay=False)
FAILED_STATUS = 3
MISSED_STATUS = 5


@document("audits")
class AuditsDocument:
    """Audits that a node made now, as `comity audit run --json` prints them.

    `not_counted`: with `comity audit check`, answers of the file that count for nothing, and copies without an answer.
    """

    audits: tuple[CheckedCopy, ...]
    not_counted: int | Absent = ABSENT


@frozen
class AuditResultItem:
    artifact: Digest
    node: str
    auditor_name: str
    date: Annotated[str, {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$|^day [0-9]+$"}]
    result: AuditResult = field(metadata=INLINE)


@document("audit-results")
class AuditResultsDocument:
    """Results of audits, as `comity audit ls --json` prints them.

    A result is what its auditor says; `proven`: the node `source` found the signed answer to be wrong. `day` counts
    from 1970.
    """

    source: str
    results: tuple[AuditResultItem, ...]


@document("audit-challenges")
class AuditChallengesDocument:
    """How many challenges a file has, as `comity audit challenge --json` prints it."""

    file: Path
    challenges: int


@document("audit-answers")
class AuditAnswersDocument:
    """How many answers a file has, as `comity audit answer --json` prints it.

    `refused`: challenges to which the node has no answer.
    """

    file: Path
    answers: int
    refused: int


@examples("comity audit run swiss-ai/apertus-8b@v1 --node /var/lib/comity", "comity audit ls --failed")
@click.group(cls=Group, name="audit", short_help="Test the copies of others, and show who tested which.")
def command() -> None:
    """An audit asks a node for random pieces of a copy that it claims. It proves quick access to these pieces at that
    moment: not a disk of its own, and nothing about later. Nodes audit one another all the time, within a budget."""


@examples("comity audit run swiss-ai/apertus-8b@v1 --node /var/lib/comity", "comity audit run sha256:9f2c… --json")
@command.command("run", short_help="Have your node audit the copies of an artifact now.")
@click.argument("reference", metavar="REF")
@of_own_node
def run(reference: str, socket: Path | None, home: Path | None) -> None:
    """Have your node audit all copies of REF that other members claim. It needs a copy of its own to compare with.
    Failures are logged at once. Exit status 3 if a copy failed, 5 if a node gave no answer."""
    from comity_client.own_node import check_copies

    out = output()
    results = check_copies(socket_of(socket, home), artifact_of(reference))
    show_results(results, "No other member claims a copy that this node can audit.")
    out.answer(AuditsDocument(tuple(results)))
    outcomes = {result.outcome for result in results}
    if outcomes - {PASSED, MISSED}:
        raise click.exceptions.Exit(FAILED_STATUS)
    if MISSED in outcomes:
        raise click.exceptions.Exit(MISSED_STATUS)


@examples(
    "comity audit challenge --at node-sg --out challenges.json --node node-ch",
    "comity audit challenge swiss-ai/apertus-8b@v1 --at node-sg --out challenges.json --node node-ch",
)
@command.command("challenge", short_help="Draw challenges for a node that no network reaches.")
@click.argument("reference", metavar="REF", required=False)
@click.option("--at", "prover", required=True, metavar="NAME", help="The node whose copies are tested.")
@click.option("--most", type=click.IntRange(1, 256), default=64, show_default=True, help="Copies to test.")
@click.option("--out", "file", type=NEW_FILE, required=True, help="The file to carry to that node.")
@of_own_node
def challenge(
    reference: str | None, prover: str, most: int, file: Path, socket: Path | None, home: Path | None
) -> None:
    """Have your node draw challenges for the copies of another node, or for its copy of REF, and write them to a file.
    Copies that your node did not test for the longest time come first. An answer is accepted for 30 days, once."""
    from comity.content import durable
    from comity.wire.audit import ChallengeRequest
    from comity_client.carried_audits import ask_challenges, encode_challenges

    out = output()
    request = ChallengeRequest(prover, artifact_of(reference) if reference else None, most)
    drawn = ask_challenges(socket_of(socket, home), request)
    durable.write_file(file, encode_challenges(drawn), mode=0o644)
    out.done(f"{plural(len(drawn), 'challenge')} written to {file}.")
    out.hint(f"at {prover}: comity audit answer {shlex.quote(str(file))} --out answers.json --node HOME")
    out.answer(AuditChallengesDocument(file, len(drawn)))


@examples("comity audit answer challenges.json --out answers.json --node node-sg")
@command.command("answer", short_help="Answer the challenges of another node from a file.")
@click.argument("challenges", type=click.Path(path_type=Path))
@click.option("--out", "file", type=NEW_FILE, required=True, help="The file to carry back.")
@of_own_node
def answer(challenges: Path, file: Path, socket: Path | None, home: Path | None) -> None:
    """Have your node read the challenged pieces of its copies and sign the answers. It answers nodes of other members
    only. Exit status 3 if it has no answer to one of them."""
    from comity.bounded_file import read_bounded
    from comity.content import durable
    from comity_client.carried_audits import MAX_FILE, answer_challenges, parse_challenges

    out = output()
    answers = answer_challenges(socket_of(socket, home), parse_challenges(read_bounded(challenges, MAX_FILE)))
    durable.write_file(file, answers.encode(), mode=0o644)
    out.done(f"{plural(len(answers.answers), 'answer')} written to {file}.")
    for refused in answers.refused:
        out.warn(f"no answer about sha256:{refused.artifact}: {refused.why}")
    out.answer(AuditAnswersDocument(file, len(answers.answers), len(answers.refused)))
    out.hint(f"carry it back, then there: comity audit check {shlex.quote(str(file))} --node HOME")
    if answers.refused:
        raise click.exceptions.Exit(FAILED_STATUS)


@examples("comity audit check answers.json --node node-ch")
@command.command("check", short_help="Check the answers that were carried back, and log the results.")
@click.argument("answers", type=click.Path(path_type=Path))
@of_own_node
def check(answers: Path, socket: Path | None, home: Path | None) -> None:
    """Have your node compare answers with its own copies. What the other node signed is recorded, with the day of the
    challenge; anything else may have been changed on the way, and counts for nothing. Exit status 3 if a copy failed, 5
    if an answer counts for nothing."""
    from comity.bounded_file import read_bounded
    from comity_client.carried_audits import MAX_FILE, CarriedAnswers, check_answers

    out = output()
    carried = CarriedAnswers.parse(read_bounded(answers, MAX_FILE))
    results, nothing = check_answers(socket_of(socket, home), carried)
    show_results(results, "No answer counts.")
    for error in nothing:
        out.warn(f"an answer counts for nothing: {error.what}: {error.why}")
    for refused in carried.refused:
        out.warn(f"the file says that there is no answer about sha256:{refused.artifact}: {refused.why}")
    out.answer(AuditsDocument(tuple(results), len(nothing) + len(carried.refused)))
    if any(result.outcome != PASSED for result in results):
        raise click.exceptions.Exit(FAILED_STATUS)
    if nothing or carried.refused:
        raise click.exceptions.Exit(MISSED_STATUS)


def show_results(results: Sequence[CheckedCopy], none: str) -> None:
    rows = [(r.jurisdiction, r.member, r.node, _word(r.outcome), str(r.pieces or "-"), r.why) for r in results]
    if rows:
        output().table(("jurisdiction", "member", "node", "result", "pieces", "why"), rows)
    else:
        output().say(none)


@examples("comity audit ls swiss-ai/apertus-8b@v1", "comity audit ls --failed", "comity audit ls --json")
@command.command("ls", short_help="Show the results of audits.")
@click.argument("reference", metavar="REF", required=False)
@click.option("--failed", is_flag=True, help="Only copies with a failed audit, or one without an answer.")
@of_a_node
def ls(reference: str | None, failed: bool, node: str, socket: Path | None, home: Path | None) -> None:
    """Show the newest result of each auditor about each copy of REF, or of all artifacts, as one node reads them from
    the logs. A result is what the auditor says; "proven" means that the node that was asked found the signed answer to
    be wrong, with its own copy."""
    out = output()
    found = read_list(node, socket, home, artifact_of(reference) if reference else None)
    rows, results = [], []
    for listed in found.artifacts:
        for copy in listed.copies:
            for result in copy.results:
                if failed and result.outcome == PASSED:
                    continue
                auditor = found.names.get(result.auditor, result.auditor[:12])
                holder = found.names.get(copy.copy.node, copy.copy.node[:12])
                proof = "proven" if result.proven else f"says {auditor}"
                rows.append((found.label(listed), holder, date(result.day), outcome_text(result), proof))
                results.append(AuditResultItem(listed.artifact, holder, auditor, date(result.day), result))
    out.say(f"As {found.source} reads the logs:")
    if rows:
        out.table(("artifact", "copy at", "day", "result", "basis"), rows)
    else:
        out.say("No audits." if not failed else "No failed audits.")
    out.say(f"{plural(len(rows), 'result')} for {plural(len(found.artifacts), 'artifact')}")
    out.answer(AuditResultsDocument(found.source, tuple(results)))


def _word(outcome: str) -> str:
    return {PASSED: "passed", MISSED: "no answer"}.get(outcome, f"FAILED: {outcome}")
