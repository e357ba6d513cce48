"""`comity demo`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from comity_cli.command import Command, examples, output
from comity_cli.files import FOLDER, NEW_FOLDER
from comity_cli.output import Output, plural


@examples("comity demo", "comity demo --cut", "comity demo --keep ./lab", "comity demo --model ./my-model --json")
@click.command(
    cls=Command, name="demo", short_help="Publish real weights, lose the publisher, pull, verify and load them."
)
@click.option("--model", type=FOLDER, help="Use the model in this folder.")
@click.option("--keep", type=NEW_FOLDER, help="Keep the lab in this folder.")
@click.option("--cut", is_flag=True, help="Cut off a vendor's service, and replace it by a run-kit.")
def command(model: Path | None, keep: Path | None, cut: bool) -> None:
    """Run the main use case on this machine: four nodes found a federation; real weights are published, mirrored and
    cosigned; the publisher's node is destroyed; a new user pulls, verifies and loads the weights.

    With --cut, the day on which a vendor's chat service is cut off is rehearsed: a kit that a continuity plan names is
    pulled from the nodes that are left, runs without a network, and answers the same client at the same address.
    """
    from comity_cli.lab.demo import Demo

    if cut and model is not None:
        raise click.UsageError("--cut takes no --model: it runs the chat kit of deploy/kits")
    out = output()
    with _folder(keep) as folder:
        if cut:
            return _run_cut(out, folder, keep)
        demo = Demo(out, folder, model)
        demo.run()
    out.say()
    out.done("The publisher is gone, its yank is known, and you still have the model.")
    left = demo.left
    out.say(
        f"Left without it: {plural(left['copies'], 'complete copy', 'complete copies')} in "
        f"{plural(left['jurisdictions'], 'jurisdiction')}; no fewer than {plural(left['reaches'], 'jurisdiction')} "
        "reach all of them by law, as the members declare it."
    )
    out.document("demo", {"steps": demo.steps, "left": dict(left), "lab": str(keep.resolve()) if keep else None})
    if keep is not None:
        out.hint(f"comity lab up {keep}   # the remaining nodes; then: comity lab status {keep}")


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The folder of the lab: one that is kept, or one that is removed with the block."""
    from comity_cli.lab.lab import check_lab_folder

    if keep is not None:
        check_lab_folder(keep)
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="comity-demo-") as scratch:
            yield Path(scratch).resolve()


def _run_cut(out: Output, folder: Path, keep: Path | None) -> None:
    from comity_cli.lab.cut_demo import CutDemo

    demo = CutDemo(out, folder)
    demo.run()
    report = demo.report
    out.say()
    out.done(f"The vendor is gone. Your own kit answered after {report['answered']} s, at the same address.")
    out.document("demo", {"steps": demo.steps, "report": report, "lab": str(keep.resolve()) if keep else None})
    if keep is not None:
        out.hint(f"comity continuity report show {keep}/drill.json")
