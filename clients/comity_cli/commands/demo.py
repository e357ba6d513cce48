"""`comity demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from comity_cli.command import Command, examples, output
from comity_cli.files import FOLDER, NEW_FOLDER
from comity_cli.output import plural


@examples("comity demo", "comity demo --keep ./lab", "comity demo --model ./my-model --json")
@click.command(
    cls=Command, name="demo", short_help="Publish real weights, lose the publisher, pull, verify and load them."
)
@click.option("--model", type=FOLDER, help="Use the model in this folder.")
@click.option("--keep", type=NEW_FOLDER, help="Keep the lab in this folder.")
def command(model: Path | None, keep: Path | None) -> None:
    """Run the main use case on this machine: four nodes found a federation; real weights are published, mirrored and
    cosigned; the publisher's node is destroyed; a new user pulls, verifies and loads the weights."""
    from comity_cli.lab.demo import Demo
    from comity_cli.lab.lab import check_lab_folder

    out = output()
    if keep is not None:
        check_lab_folder(keep)
        keep.mkdir(parents=True, exist_ok=True)
        demo = Demo(out, keep.resolve(), model)
        demo.run()
    else:
        with tempfile.TemporaryDirectory(prefix="comity-demo-") as scratch:
            demo = Demo(out, Path(scratch).resolve(), model)
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
