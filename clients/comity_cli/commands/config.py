"""`comity config check|show`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import click
from comity.trust.exit_statuses import USAGE
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import document, named
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option
from comity_cli.output import plural

HOME = home_option("Your node, by its home. Default: here.", exists=False)


@frozen
class ProblemItem:
    """What is wrong with one setting, as an error is printed."""

    code: Annotated[str, {"pattern": "^[A-Z0-9-]+$"}]
    what: str
    why: str
    hint: str = field(metadata=named("try"))


@document("config-check")
class ConfigCheckDocument:
    """What is wrong with the settings of a node, as `comity config check --json` prints it.

    `problems`: each as an error is printed; an empty list if there is none.
    """

    file: Path
    problems: tuple[ProblemItem, ...]


@frozen
class SettingItem:
    """A setting as it takes effect, and where its value comes from."""

    name: str
    value: str
    origin: str
    where: str


@document("config")
class ConfigDocument:
    """The settings of a node, as `comity config show --json` prints them. No secret is printed."""

    file: Path
    settings: tuple[SettingItem, ...]


@examples("comity config check", "comity config check --node /var/lib/comity", "comity config show --origin")
@click.group(cls=Group, name="config", short_help="Check and show the settings of your node.")
def command() -> None:
    """Check and show the settings of a node: node.toml, overridden by the environment of this shell. A service may run
    with another environment."""


@examples("comity config check", "comity config check --node /var/lib/comity", "comity config check --json")
@command.command("check", short_help="Find what is wrong with the settings.")
@HOME
def check(home: Path) -> int:
    """Check every setting, and the files that settings name. Nothing is started or changed; ports are checked by
    `comity serve --check`.

    Exit status: 0 nothing is wrong, 2 something is, and each line says what and where.
    """
    file = node_file(home)
    with node_installed():
        from comity.node.maintenance.settings_shown import setting_problems
    problems, out = setting_problems(file), output()
    for problem in problems:
        out.say(f"{problem}  [{problem.code}]", sign=f"{out.mark('✗', 'red')} ")
        if problem.hint:
            out.fact("try", problem.hint)
    if problems:
        out.say(f"{plural(len(problems), 'problem')} in the settings of {file}")
    else:
        out.done(f"the settings in {file} and the files that they name are usable")
    out.answer(ConfigCheckDocument(file, tuple(ProblemItem(p.code, p.what, p.why, p.hint) for p in problems)))
    return USAGE if problems else 0


@examples("comity config show", "comity config show --origin", "comity config show --node /var/lib/comity --json")
@command.command("show", short_help="Show the settings that take effect.")
@click.option("--origin", is_flag=True, help="Show where each value comes from: file and line, environment, default.")
@HOME
def show(origin: bool, home: Path) -> None:
    """Show every setting with the value that takes effect. Secrets are not settings: of a file with a secret, only its
    path is shown."""
    file = node_file(home)
    with node_installed():
        from comity.node.maintenance.settings_shown import shown_settings
    settings, out = shown_settings(file), output()
    if origin:
        rows = [(each.name, each.value or "-", str(each.origin)) for each in settings]
        out.table(("setting", "value", "origin"), rows, shorten=("value", "origin"))
    else:
        out.table(("setting", "value"), [(each.name, each.value or "-") for each in settings], shorten=("value",))
    listed = (SettingItem(each.name, each.value, each.origin.kind, each.origin.where) for each in settings)
    out.answer(ConfigDocument(file, tuple(listed)))
