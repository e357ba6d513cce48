"""`comity evaluation new|announce|report`: criteria that are logged before the result."""

from __future__ import annotations

import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.errors import Conflict

from comity_cli.command import Group, client, examples, output
from comity_cli.commands.publish import NODE, show_receipt
from comity_cli.document import document
from comity_cli.files import FILE, out_option
from comity_cli.following import follow
from comity_cli.signers import PUBLISHER, signing

if TYPE_CHECKING:
    from comity.trust.evaluation import EvaluationResults


@document("evaluation-template")
class EvaluationTemplateDocument:
    """The file that `comity evaluation new --json` has written.

    Criteria of an evaluation, to be filled in.
    """

    file: Path


@examples(
    "comity evaluation new --out criteria.toml",
    "comity evaluation announce swiss-ai/apertus-8b@v1 --criteria criteria.toml",
    "comity evaluation report swiss-ai/apertus-8b@v1 --criteria criteria.json --value refusal_rate=0.991",
)
@click.group(cls=Group, name="evaluation", short_help="Announce an evaluation, and log its results.")
def command() -> None:
    """Log what you will measure and what must be reached before you measure. Readers then see from one log that your
    criteria are older than your result. The values are your claim."""


@examples("comity evaluation new --out criteria.toml")
@command.command("new", short_help="Write criteria to fill in.")
@out_option("criteria.toml")
def new(target: Path) -> None:
    """Write a commented criteria file. Nothing is signed or sent."""
    from comity_client.vouching import TEMPLATE

    _require_new(target)
    durable.write_file(target, TEMPLATE.encode(), mode=0o644, point="evaluation")
    output().done(f"{target}: written, to be filled in")
    output().answer(EvaluationTemplateDocument(target))
    output().hint(f"comity evaluation announce REF --criteria {shlex.quote(str(target))}")


@examples("comity evaluation announce swiss-ai/apertus-8b@v1 --criteria criteria.toml --node node-es")
@command.command("announce", short_help="Log the digest of your criteria.")
@click.argument("reference", metavar="REF")
@click.option("--criteria", required=True, type=FILE, help="The file of `comity evaluation new`.")
@out_option("criteria.json")
@PUBLISHER
@NODE
def announce(reference: str, criteria: Path, target: Path, publisher: str, nodes: tuple[str, ...]) -> int:
    """Log that you will evaluate REF by these criteria. Only their digest is public until you report. Keep the document
    that is written to --out: it holds a random number, and without it you cannot show what you announced. Exit status
    8: not every node that you named logged it."""
    from comity_client.vouching import MAX_TOML, read_criteria

    _require_new(target)
    out, api = output(), client()
    by, made = signing(api, publisher), read_criteria(read_bounded(criteria, MAX_TOML))
    durable.write_file(target, made.encode(), mode=0o600, point="evaluation")
    out.done(f"{target}: your criteria, sha256 {made.digest}; keep it")
    with follow(out, "announcing") as on_event:
        receipt = api.announce_evaluation(reference, made.digest, by=by, nodes=nodes, on_event=on_event)
    status = show_receipt(out, receipt, nodes)
    out.hint(f"comity evaluation report {reference} --criteria {shlex.quote(str(target))} --value METRIC=VALUE")
    return status


@examples(
    "comity evaluation report swiss-ai/apertus-8b@v1 --criteria criteria.json --value refusal_rate=0.991 "
    "--value latency=1.2 --node node-es",
    "comity evaluation report ch-ministry/smollm2-chat@v1 --criteria criteria.json --results results.json",
)
@command.command("report", short_help="Log the results of an evaluation.")
@click.argument("reference", metavar="REF")
@click.option("--criteria", required=True, type=FILE, help="The document that `announce` wrote.")
@click.option("--value", "values", multiple=True, metavar="METRIC=VALUE", help="A decimal number.")
@click.option("--results", "measured", type=FILE, help="The file of `comity kit evaluate`: the value of pass_rate.")
@click.option("--text", default="", help="How, in a few words.")
@PUBLISHER
@NODE
def report(
    reference: str,
    criteria: Path,
    values: tuple[str, ...],
    measured: Path | None,
    text: str,
    publisher: str,
    nodes: tuple[str, ...],
) -> int:
    """Log the results as a vouch *evaluated*, with the criteria. Results of `comity kit evaluate` are taken only if the
    criteria name the same samples. Log them at the node that has the announcement: only
    one log proves which came first. Exit status 8: not every node that you named logged them."""
    from comity.trust.evaluation import MAX_DOCUMENT, EvaluationCriteria
    from comity_client.kits.asking import MAX_RESULTS, KitResults
    from comity_client.vouching import results_of

    if not values and measured is None:
        raise click.UsageError("give --value for each metric, or --results")
    out, api = output(), client()
    by, announced = signing(api, publisher), EvaluationCriteria.parse(read_bounded(criteria, MAX_DOCUMENT))
    if measured is not None:
        values += (KitResults.parse(read_bounded(measured, MAX_RESULTS)).value_for(announced),)
    results = results_of(announced, values, int(time.time()))
    _show(results)
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "results.json"
        durable.write_file(document, results.encode(), mode=0o600, point="evaluation")
        with follow(out, "reporting") as on_event:
            receipt = api.vouch(
                reference, "evaluated", text=text, document=document, by=by, nodes=nodes, on_event=on_event
            )
    status = show_receipt(out, receipt, nodes)
    out.hint(f"comity pull {reference}")
    return status


def _show(results: EvaluationResults) -> None:
    for threshold, value, met in zip(results.criteria.thresholds, results.values, results.met, strict=True):
        output().fact(threshold.metric, f"{value}; {threshold}: {'met' if met else 'not met'}")


def _require_new(target: Path) -> None:
    if target.exists():
        raise Conflict(f"{target} exists", why="it is not overwritten", hint="repeat with --out OTHER")
