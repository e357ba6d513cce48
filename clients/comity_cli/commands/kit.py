"""`comity kit`."""

from __future__ import annotations

import click

from comity_cli.command import Group, examples
from comity_cli.commands import kit_build, kit_run


@examples(
    "comity kit new our-chat --shape chat --wheels wheels",
    "comity kit build our-chat our-chat-kit",
    "comity kit show our-chat-kit",
    "comity kit check our-chat-kit",
    "comity publish our-chat-kit --as org/our-chat-kit@v1 --license Apache-2.0",
    "comity kit run org/our-chat-kit@v1 --policy policy.toml",
)
@click.group(cls=Group, name="kit", short_help="Build, check and run artifacts that bring their engine.")
def command() -> None:
    """A run-kit is an artifact that runs: weights, an engine with all its wheels, licences, a bill of all parts, and a
    self-test with expected answers. Each part is named by its digest, and nothing is fetched when it runs."""


for _each in (kit_build.new, kit_build.build, kit_build.show, kit_run.check, kit_run.run, kit_run.evaluate):
    command.add_command(_each)
