"""The `comity` command. Each command is a module in `comity_cli.commands` or of an add-on, imported when it runs."""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import click
import comity
from comity.installed_addons import from_addons
from comity.trust.errors import ComityError
from comity.trust.exit_statuses import INTERRUPTED, USAGE

from comity_cli.output import Output

USER_ERRORS: Final = frozenset(
    {
        *("AMBIGUOUS-ID", "BAD-ENDPOINT", "BAD-ID", "BAD-JURISDICTION", "BAD-LICENCE", "BAD-NAME"),
        *("CONFIG", "CONFIG-UNKNOWN-KEY", "OFFER-FILE", "POLICY-SYNTAX", "TRUST-SYNTAX"),
    }
)
"""Errors in a command line or a file of the user: exit status 2, not the status of a failed verification."""


class LazyCommand(NamedTuple):
    """A command's section in the help, its module (after a dot: below `comity_cli.commands`), and its one-line help (a
    test compares it with the command's)."""

    section: str
    module: str
    help: str


COMMANDS: Final[dict[str, LazyCommand]] = {
    "demo": LazyCommand("Start", ".demo", "Publish real weights, lose the publisher, pull, verify and load them."),
    "lab": LazyCommand("Start", ".lab", "Run a four-node federation on this machine."),
    "pull": LazyCommand("Mirror", ".pull", "Fetch an artifact from all reachable nodes, and verify it."),
    "search": LazyCommand("Mirror", ".search", "Find artifacts by name."),
    "show": LazyCommand("Mirror", ".show", "Show the statements about an artifact, and their authors."),
    "whereis": LazyCommand("Mirror", ".whereis", "List the nodes that claim a full copy."),
    "copies": LazyCommand("Mirror", ".copies", "Count the copies of each artifact, claimed and tested."),
    "pin": LazyCommand("Mirror", ".pin", "Keep artifacts available, by asking others for copies."),
    "audit": LazyCommand("Mirror", ".audit", "Test the copies of others, and show who tested which."),
    "descent": LazyCommand("Mirror", ".descent", "Show from publishers of which law the artifacts descend."),
    "impact": LazyCommand("Mirror", ".impact", "Show what would be lost if a party vanished."),
    "transparency-report": LazyCommand(
        "Mirror", ".transparency_report", "Count withdrawn copies by jurisdiction and reason."
    ),
    "mirror": LazyCommand("Mirror", ".mirror", "Write and check the rules by which your node copies artifacts."),
    "continuity": LazyCommand("Mirror", ".continuity", "Plan for the day a service is cut off, and rehearse it."),
    "drill": LazyCommand("Mirror", ".drill", "Show what is left without each single party."),
    "env": LazyCommand("Mirror", ".env", "Point Hugging Face clients at a node."),
    "run-with": LazyCommand("Mirror", ".run_with", "Run one program with a node as its Hugging Face Hub."),
    "storage-initializer": LazyCommand(
        "Mirror", ".storage_initializer", "Put verified models into the volumes of a pod."
    ),
    "export": LazyCommand("Mirror", ".export", "Write what a node has to disks that people carry."),
    "load": LazyCommand("Mirror", ".load", "Have your node take what a bundle on disks has."),
    "verify": LazyCommand("Verify", ".verify", "Check an artifact by its files and evidence."),
    "identify": LazyCommand("Verify", ".identify", "Say what files are, and judge the artifacts that they are of."),
    "adopt": LazyCommand("Verify", ".adopt", "Keep the evidence of files from elsewhere beside them."),
    "inventory": LazyCommand("Verify", ".inventory", "Record what lies on disks, and what has changed there."),
    "index": LazyCommand("Verify", ".index", "Keep indexes of files, to identify files without asking nodes."),
    "report": LazyCommand("Verify", ".report", "Check and read reports."),
    "policy": LazyCommand("Verify", ".policy", "Write, check and explain your verification policy."),
    "scan": LazyCommand("Verify", ".scan", "Detect file formats and code that a loader would run."),
    "trust": LazyCommand("Verify", ".trust", "Pin a federation, and see what is pinned."),
    "log": LazyCommand("Verify", ".log", "Read and check transparency logs."),
    "publisher": LazyCommand("Publish", ".publisher", "Make and list publisher identities."),
    "publish": LazyCommand("Publish", ".publish", "Sign a folder and publish it to one or two nodes."),
    "import": LazyCommand("Publish", ".import_", "Mirror files of an upstream through your node, and log it."),
    "vouch": LazyCommand("Publish", ".vouch", "Sign and log that you checked an artifact yourself."),
    "continues": LazyCommand("Publish", ".continues", "Say which commit of an upstream an artifact was."),
    "approve": LazyCommand("Publish", ".approve", "Approve an artifact for a use, as a named officer."),
    "approvals": LazyCommand("Publish", ".approvals", "List approvals of officers, end yours, and carry them."),
    "evaluation": LazyCommand("Publish", ".evaluation", "Announce an evaluation, and log its results."),
    "kit": LazyCommand("Publish", ".kit", "Build, check and run artifacts that bring their engine."),
    "advisory": LazyCommand("Publish", ".advisory", "Log a warning about an artifact, such as a yank."),
    "offer": LazyCommand("Lend", ".offer", "Lend machines to partners, and find machines they lend."),
    "grant": LazyCommand("Lend", ".grant", "Answer requests for machines; accept, redeem or release grants."),
    "pact": LazyCommand("Lend", ".pact", "Reserve machines for the case of a cut-off."),
    "init": LazyCommand("Join", ".init", "Make a member's keys and a node's home."),
    "join": LazyCommand("Join", ".join", "Ask a federation to admit your member."),
    "invite": LazyCommand("Join", ".invite", "Write the federation file for a newcomer."),
    "found": LazyCommand("Join", ".found", "Found a federation from members' cards, by files."),
    "member": LazyCommand("Govern", ".member", "Show the members, and the requests to join."),
    "proposal": LazyCommand("Govern", ".proposal", "Change the charter: draft, approve, follow."),
    "keys": LazyCommand("Govern", ".keys", "Show, change and use the keys of your seat."),
    "leave": LazyCommand("Govern", ".leave", "Ask to be removed from the next charter."),
    "refound": LazyCommand("Govern", ".refound", "Found a successor of a federation that lost its quorum."),
    "serve": LazyCommand("Operate", ".serve", "Run a node."),
    "console": LazyCommand("Operate", ".console", "Sign in to the pages of your node."),
    "costs": LazyCommand("Operate", ".costs", "Show what membership costs in a year, from your own node."),
    "peer": LazyCommand("Operate", ".peer", "Show and call the nodes of other members."),
    "doctor": LazyCommand("Operate", ".doctor", "Find what is wrong with your node, and how to repair it."),
    "backup": LazyCommand("Operate", ".backup", "Back up your node's home, and restore it."),
    "upgrade": LazyCommand("Operate", ".upgrade", "Fetch a release by policy; see what it would change."),
    "config": LazyCommand("Operate", ".config", "Check and show the settings of your node."),
    "webhook": LazyCommand("Operate", ".webhook", "Tell other programs what happens at your node."),
    "pulls": LazyCommand("Operate", ".pulls", "Count the pulls from your node, by week."),
    "audit-log": LazyCommand("Operate", ".audit_log", "Check and read the log of what operators of your node did."),
    "token": LazyCommand("Operate", ".token", "Manage tokens for your node's gateway."),
    "cache": LazyCommand("Mirror", ".cache", "List, remove and clean up what was pulled."),
    "gc": LazyCommand("Operate", ".gc", "Remove the copies that your retention rules let go."),
    "takeover": LazyCommand("Operate", ".takeover", "End the writer of your node, so that a standby goes on."),
    "storage": LazyCommand("Operate", ".storage", "Move the ledger and the blobs of your node to another place."),
    "rm": LazyCommand("Operate", ".rm", "Remove your node's copy, if enough others prove theirs now."),
    "withdraw": LazyCommand("Operate", ".withdraw", "Stop serving an artifact at once, and log why."),
    "status": LazyCommand("Operate", ".status", "Show the state of the nodes of your federation."),
    "support-bundle": LazyCommand(
        "Operate", ".support_bundle", "Collect what helps others to find a fault: no secrets."
    ),
    "explain": LazyCommand("Operate", ".explain", "Explain an error code."),
    "completion": LazyCommand("Operate", ".completion", "Print a shell completion script."),
    "version": LazyCommand("Operate", ".version", "Print the version."),
    "help": LazyCommand("Operate", ".help", "Show the help of a command."),
    **{name: LazyCommand(*each) for added in from_addons("COMMANDS") for name, each in added.items()},
}
"""Those of the core, then those of the add-ons, each of which declares a table with the same three texts."""

GUESSES: Final[dict[str, tuple[str, ...]]] = {
    "unpin": ("trust unpin",),
    "bind": ("trust bind",),
    "restore": ("backup restore",),
    "download": ("pull",),
    "fetch": ("pull",),
    "get": ("pull",),
    "clone": ("pull",),
    "push": ("publish",),
    "upload": ("publish",),
    "sign": ("publish", "keys sign"),
    "yank": ("advisory new",),
    "delete": ("cache rm", "rm", "advisory new"),
    "prune": ("cache prune",),
    "ls": ("cache ls", "search", "status"),
    "list": ("cache ls", "search", "status"),
    "find": ("search",),
    "info": ("show",),
    "inspect": ("show", "scan"),
    "check": ("verify", "scan", "kit check"),
    "vote": ("proposal approve",),
    "consent": ("proposal consent", "found consent"),
    "admit": ("proposal new",),
    "members": ("member ls",),
    "peers": ("peer ls",),
    "nodes": ("status",),
    "node": ("status", "serve"),
    "ping": ("peer ping", "status"),
    "diagnose": ("doctor",),
    "health": ("doctor", "status"),
    "start": ("serve",),
    "run": ("serve", "kit run", "run-with"),
    "up": ("lab up",),
    "down": ("lab down",),
    "login": ("console sign-in", "env", "token new"),
    "rotate": ("keys rotate", "publisher rotate"),
    "key": ("keys",),
    "settings": ("config show",),
    "migrate": ("upgrade check",),
    "license": ("show",),
    "replicas": ("whereis",),
    **{typed: meant for added in from_addons("GUESSES") for typed, meant in added.items()},
}
"""What people type first, and the commands that do it."""

EXAMPLES: Final = (
    "comity demo",
    "comity trust pin federation.json",
    "comity pull swiss-ai/apertus-8b@v1",
)


class CommandTable(click.Group):
    """A group that imports a command only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command = importlib.import_module(lazy.module, "comity_cli.commands").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            found = GUESSES.get(args[0].lower()) or (close(args[0], COMMANDS) or close(args[0], GUESSES))
            ctx.fail(no_such_command(args[0], [name for each in found for name in GUESSES.get(each, (each,))]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(lazy.section for lazy in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items() if lazy.section == section])
        with formatter.section("Examples"):
            formatter.write_text("\b\n" + "\n".join(EXAMPLES))


def close(typed: str, known: Iterable[str]) -> Sequence[str]:
    """The known name that was probably meant; none if nothing is near."""
    import difflib

    return difflib.get_close_matches(typed.lower(), list(known), 1)


def no_such_command(typed: str, meant: Sequence[str]) -> str:
    """The message for a command that is not there, with those that may have been meant, as they are typed."""
    group = " ".join(["comity", *typed[:80].split()[:-1]])
    guess = f"Did you mean {' or '.join(repr(name) for name in meant)}?" if meant else f"See: {group} --help"
    return f"No such command {typed[:80]!r}. {guess}"


def _set(attribute: str, value: bool) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            setattr(ctx.ensure_object(Output), attribute, value)

    return callback


def common_options() -> list[click.Option]:
    """The flags that every command takes, at any position on the command line."""
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


def _disk_error(error: OSError) -> ComityError:
    """The error for a file or folder that cannot be used: one that nobody could name better."""
    from comity.content.durable import disk_errors

    try:
        with disk_errors("a file or folder cannot be used"):
            raise error
    except ComityError as translated:
        return translated


def _usage(error: click.ClickException, output: Output, arguments: Sequence[str]) -> None:
    """Print what is wrong with `arguments`: they may not have been read as far as `--json`."""
    if "--json" not in itertools.takewhile(lambda word: word != "--", arguments):
        error.show()
        return
    output.as_json = True
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "comity"
    failure = ComityError(error.format_message(), hint=f"{path} --help", code="USAGE")
    failure.exit_status = error.exit_code
    output.error(failure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 ok, 1 failed, 2 usage, 3 verification failed, 4 policy not met, 5 unreachable,
    6 refused, 7 disk or quota, 8 partial, 9 known to no node, 10 warned, 130 interrupted."""
    import logging

    atexit.register(gc.freeze)  # else Python searches all that it loaded for cycles as it exits: 0.1 s of CPU
    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints what libraries log to the terminal
    output = Output()
    try:
        status = command.main(args=arguments, prog_name="comity", standalone_mode=False, obj=output)
    except ComityError as error:
        if error.code in USER_ERRORS:
            error.exit_status = USAGE
        output.error(error)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        _usage(error, output, sys.argv[1:] if arguments is None else arguments)
        sys.exit(error.exit_code)
    except OSError as error:
        failure = _disk_error(error)
        output.error(failure)
        sys.exit(failure.exit_status)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; finished work is kept, run the same command to continue", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
