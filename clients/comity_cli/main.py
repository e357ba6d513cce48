"""The `comity` command. Commands live one a module in `comity_cli.commands` and are imported only when they run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import click
import comity
from comity.trust.errors import ComityError

from comity_cli.output import Output

USAGE: Final = 2
INTERRUPTED: Final = 130
OWN_WORDS: Final = frozenset(
    {"BAD-NAME", "CONFIG", "CONFIG-UNKNOWN-KEY", "OFFER-FILE", "POLICY-SYNTAX", "TRUST-SYNTAX"}
)
"""Errors in what the user typed or wrote: malformed, but never to be mistaken for a verification that failed."""


class Lazy(NamedTuple):
    """Where a command lives, and its one-line help (a test holds it against the command's own)."""

    journey: str
    module: str
    help: str


COMMANDS: Final[dict[str, Lazy]] = {
    "demo": Lazy("Start", "demo", "Publish real weights, lose the publisher, pull, verify and load them."),
    "lab": Lazy("Start", "lab", "Run a four-node federation on this machine."),
    "pull": Lazy("Mirror", "pull", "Fetch an artifact from every reachable node, verified."),
    "search": Lazy("Mirror", "search", "Find artifacts by name."),
    "show": Lazy("Mirror", "show", "Show what is said about an artifact, and by whom."),
    "whereis": Lazy("Mirror", "whereis", "List who says that they hold a full copy."),
    "env": Lazy("Mirror", "env", "Point Hugging Face clients at a node."),
    "run-with": Lazy("Mirror", "run_with", "Run one program with a node as its Hugging Face Hub."),
    "verify": Lazy("Verify", "verify", "Check an artifact and its evidence, offline."),
    "report": Lazy("Verify", "report", "Check and read reports that were filed."),
    "policy": Lazy("Verify", "policy", "Write, check and explain what you demand of a model."),
    "lineage": Lazy("Verify", "lineage", "Show what an artifact was made from, and who says so."),
    "derive": Lazy("Verify", "derive", "Make a child's weights again from its parent's, and compare."),
    "bom": Lazy("Verify", "bom", "Write an artifact down as a CycloneDX ML-BOM."),
    "scan": Lazy("Verify", "scan", "Look into files: what they are, what in them would run."),
    "diff": Lazy("Verify", "diff", "Show what differs between two artifacts."),
    "trust": Lazy("Verify", "trust", "Pin a federation, and see what is pinned."),
    "log": Lazy("Verify", "log", "Read and check transparency logs."),
    "publisher": Lazy("Publish", "publisher", "Make and list publisher identities."),
    "publish": Lazy("Publish", "publish", "Sign a folder and publish it to one or two nodes."),
    "import": Lazy("Publish", "import_", "Mirror a repository of a Hub through your node, and say so."),
    "vouch": Lazy("Publish", "vouch", "Sign and log that you checked an artifact yourself."),
    "advisory": Lazy("Publish", "advisory", "Log a warning about an artifact, such as a yank."),
    "offer": Lazy("Lend", "offer", "Lend machines to partners, and find machines they lend."),
    "grant": Lazy("Lend", "grant", "Answer requests for machines; accept, redeem, give back."),
    "pact": Lazy("Lend", "pact", "Agree on machines for the day you are cut off."),
    "init": Lazy("Join", "init", "Make a member's keys and a node's home."),
    "join": Lazy("Join", "join", "Ask a federation to admit your member."),
    "invite": Lazy("Join", "invite", "Write the federation file for a newcomer."),
    "found": Lazy("Join", "found", "Found a federation from members' cards, by files."),
    "member": Lazy("Govern", "member", "See who the members are, and who asks to join."),
    "proposal": Lazy("Govern", "proposal", "Change the charter: draft, approve, follow."),
    "keys": Lazy("Govern", "keys", "Show, change and use the keys of your seat."),
    "leave": Lazy("Govern", "leave", "Ask to be left out of the next charter."),
    "refound": Lazy("Govern", "refound", "Found a federation anew after its quorum is lost."),
    "serve": Lazy("Operate", "serve", "Run a node."),
    "token": Lazy("Operate", "token", "Let people read through your node's gateway."),
    "status": Lazy("Operate", "status", "Show the state of the nodes of your federation."),
    "explain": Lazy("Operate", "explain", "Say what an error code means and what to do."),
    "completion": Lazy("Operate", "completion", "Print a shell completion script."),
}

EXAMPLES: Final = (
    "comity demo",
    "comity trust pin federation.json",
    "comity pull swiss-ai/apertus-8b@v1",
)


class CommandTable(click.Group):
    """A group whose commands are named here and imported only when one of them runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command = importlib.import_module(f"comity_cli.commands.{lazy.module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for journey in dict.fromkeys(lazy.journey for lazy in COMMANDS.values()):
            with formatter.section(journey):
                formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items() if lazy.journey == journey])
        with formatter.section("Examples"):
            formatter.write_text("\b\n" + "\n".join(EXAMPLES))


def _set(attribute: str, value: bool) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            setattr(ctx.ensure_object(Output), attribute, value)

    return callback


def common_options() -> list[click.Option]:
    """The flags that every command takes, wherever they stand on the line."""
    kind: dict[str, Any] = {"is_flag": True, "expose_value": False, "is_eager": True}
    return [
        click.Option(["--json"], callback=_set("as_json", True), help="Print one JSON document.", **kind),
        click.Option(["-q", "--quiet"], callback=_set("quiet", True), help="Print nothing but errors.", **kind),
        click.Option(["--no-color"], callback=_set("color", False), help="No colours (also: NO_COLOR).", **kind),
    ]


@click.group(
    cls=CommandTable,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Mirror, verify and share signed open-weight models: no partner can revoke the others' access.",
)
@click.version_option(comity.__version__, prog_name="comity")
def command() -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 ok, 1 failed, 2 usage, 3 verification failed, 4 policy not met, 5 unreachable,
    6 refused, 7 disk or quota, 8 partial, 130 interrupted."""
    output = Output()
    try:
        status = command.main(args=arguments, standalone_mode=False, obj=output)
    except ComityError as error:
        if error.code in OWN_WORDS:
            error.exit_status = USAGE
        output.error(error)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was done so far is kept, run the same command to go on", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
