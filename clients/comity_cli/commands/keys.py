"""`comity keys`: a member's governance keys, which are kept outside the node."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from comity.bounded_file import read_bounded
from comity.trust.encoding import Digest, format_id, syllables
from comity.trust.frozen import frozen

from comity_cli.charter.context import CharterContext, reading_options, signing_options
from comity_cli.command import Group, agree, client, examples, options_as, output
from comity_cli.document import document
from comity_cli.files import FILE, FOLDER, NEW_FOLDER
from comity_cli.node_home import SeatOptions
from comity_cli.nodes import home_option, member_node_options
from comity_cli.output import plural
from comity_cli.places import PlaceOptions, place_options

if TYPE_CHECKING:
    from comity_client.charter.proposals import Plan
    from comity_client.charter.state import CharterState


@frozen
class KeyItem:
    """A governance key; `path` is null where it is not here."""

    id: Digest
    kind: str
    path: Path | None
    state: str


@document("keys")
class KeysDocument:
    """The keys of a member, as `comity keys show --json` prints them.

    `seat`: its name in the current charter. `recovery`: digests of the keys that can change the others.
    """

    member: Digest
    seat: str | None
    threshold: int
    rotations: int
    disputed: bool
    keys: tuple[KeyItem, ...]
    recovery: tuple[Digest, ...]


@examples(
    "comity keys show --node node-ch",
    "comity keys rotate --node node-ch --recovery /media/vault/recovery.pem",
    "comity keys sign intent-1a2b3c4d.ceremony.json --key governance-2.pem",
)
@click.group(cls=Group, name="keys", short_help="Show, change and use the keys of your seat.")
def command() -> None:
    """The governance keys sign for your member. The recovery keys can change them, without consent of other members."""


@examples("comity keys show --node node-ch", "comity keys show --node node-ch --json")
@command.command("show", short_help="Show your member's keys, and whether they may sign now.")
@home_option("Your member's node, by its home. Default: here.")
@reading_options
def show(home: Path, **options: Any) -> None:
    """Show which keys sign for your member, which of them are here, and whether their vote files are intact."""
    from comity_client.node_home import OFFLINE
    from comity_client.signing.votes import find_keys

    context, out = CharterContext(home=home, **options), output()
    chain, prev = context.chain, context.charter_state.current.digest
    keys = chain.current.keys
    here = {key.public.id: key for key in find_keys(home / OFFLINE, keys)}
    seat = context.charter_state.current.member(chain.start.identity)
    out.say(f"Member {syllables(chain.start.identity)}   {format_id(chain.start.identity)}")
    out.fact("seat", f"{seat.name} ({seat.jurisdiction}), {seat.status}" if seat else "none in the current charter")
    out.fact(
        "signs with",
        f"{keys.threshold} of {plural(len(keys.keys), 'key')}, after {plural(len(chain.steps), 'rotation')}",
    )
    if chain.disputes:
        out.warn("two rotations of these keys contradict each other; nobody can decide which is yours")
    rows, listed = [], []
    for key in keys.keys:
        found = here.get(key.id)
        lost = found.votes.load(prev).lost(prev) if found else None
        state = "not here" if not found else f"does not vote in this epoch: {lost.why}" if lost else "may sign"
        kind = " + ".join(half.alg for half in key.halves)
        rows.append((key.id[:16], kind, str(found.path) if found else "-", state))
        listed.append(KeyItem(key.id, kind, found.path if found else None, state))
    out.table(("key", "kind", "file", "state"), rows)
    out.fact(
        "recovery", ", ".join(digest[:16] for digest in chain.current.recovery) or "none: the keys can never be changed"
    )
    out.answer(
        KeysDocument(
            member=chain.start.identity,
            seat=seat.name if seat else None,
            threshold=keys.threshold,
            rotations=len(chain.steps),
            disputed=bool(chain.disputes),
            keys=tuple(listed),
            recovery=tuple(chain.current.recovery),
        )
    )


@examples(
    "comity keys rotate --node node-ch",
    "comity keys rotate --node node-ch --recovery /media/vault/recovery.pem --governance-keys 3",
    "comity keys rotate --node node-ch --signed rotated-1a2b3c4d.ceremony.json",
)
@command.command("rotate", short_help="Give your member new keys, signed by its recovery keys.")
@click.option(
    "--recovery", "recovery", multiple=True, type=FILE, help="A recovery key. Default: those in HOME/offline."
)
@click.option("--governance-keys", default=1, show_default=True, help="How many new governance keys.")
@click.option("--threshold", type=int, help="How many of them must sign. Default: more than half.")
@click.option("--recovery-keys", default=1, show_default=True, help="How many new recovery keys.")
@click.option("--token", "tokens", multiple=True, type=FILE, help="TOML file of one more governance key, in an HSM.")
@click.option("--signed", type=FILE, help="Apply a rotation that others have signed: its ceremony file.")
@options_as("seat", SeatOptions)
@signing_options
def rotate(
    recovery: tuple[Path, ...],
    seat: SeatOptions,
    signed: Path | None,
    **options: Any,
) -> None:
    """Give your member new governance and recovery keys. The recovery keys sign; no vote, node or other member can do
    or prevent this. Signatures of the old keys stay valid. The rotation records the current size of your log (asked of
    the nodes, unless --offline), so that nobody can backdate new signatures of the old keys."""
    from comity_client.charter import keys as rotating
    from comity_client.charter import proposals as acts
    from comity_client.charter.proposals import plan_carried
    from comity_client.node_home import OFFLINE, own_inception
    from comity_client.signing.votes import MAX_CEREMONY_FILE, open_key

    from comity_cli.charter.signing import show_plan, write_ceremony

    context = CharterContext(**options)
    if signed is not None:
        context.check_destination()
        _apply(context, plan_carried(read_bounded(signed, MAX_CEREMONY_FILE), context.charter_state))
        return
    files = recovery or tuple(sorted((context.home / OFFLINE).rglob("recovery*.pem")))
    used = [key for key in map(open_key, files) if key.public.id in context.chain.current.recovery]
    context.check_own_log()
    cut = () if context.offline else (client().cut(own_inception(context.home).home),)
    prepared = rotating.prepare_rotation(
        context.charter_state, context.home, seat.shape, [key.public for key in used], cut=cut
    )
    show_plan(prepared.plan)
    context.check_destination()
    agree("Make these keys, and sign with the recovery keys?", yes=context.yes)
    rotated = acts.sign_plan_with_all(prepared.begin(), used)
    if rotated.ceremony.complete:
        _apply(context, rotated)
        return
    file = write_ceremony(rotated)
    output().hint(f"when all have signed: comity keys rotate --node {context.home} --signed {file}")


@examples(
    "comity keys place --node node-es --operator 'Example Hosting' --cloud 'Example Cloud' --reach US",
    "comity keys place --node node-es --operator 'Example Centre'",
    "comity keys place --node node-es --signed node-record-1a2b3c4d.ceremony.json",
)
@command.command("place", short_help="Declare where your node's machines are, and whose law reaches them.")
@place_options
@click.option("--signed", type=FILE, help="Apply a node record that others have signed: its ceremony file.")
@signing_options
def place(declared: PlaceOptions, signed: Path | None, **options: Any) -> None:
    """Sign and log a new node record that declares who operates your node's machines, on which cloud, and whose law
    reaches them; the jurisdiction of your member is always one. Copies are counted by it. It is your member's word:
    nobody verifies it. Nodes of an older version do not read such a record and go on with the one before."""
    from comity_client.charter import keys as records
    from comity_client.charter import proposals as acts
    from comity_client.charter.proposals import plan_carried
    from comity_client.node_home import own_inception
    from comity_client.signing.votes import MAX_CEREMONY_FILE

    from comity_cli.charter.signing import deliver, show_plan, write_ceremony

    context = CharterContext(**options)
    if signed is not None:
        context.check_destination()
        plan = plan_carried(read_bounded(signed, MAX_CEREMONY_FILE), context.charter_state)
    else:
        own = own_inception(context.home)
        stated = declared.declared_by(own.label, own.jurisdiction)
        plan = records.plan_place(context.charter_state, context.home, stated)
        show_plan(plan)
        context.check_destination()
        agree("Sign this declaration with the governance keys?", yes=context.yes)
        plan = acts.sign_plan_with_all(plan, context.governance_keys)
    if not plan.ceremony.complete:
        file = write_ceremony(plan)
        output().hint(f"when all have signed: comity keys place --node {context.home} --signed {file}")
        return
    records.apply_node_record(context.home, plan)
    deliver(context, plan)
    output().hint("restart your node, so that it presents the new record: comity serve")


@examples(
    "comity keys sign intent-1a2b3c4d.ceremony.json --key governance-2.pem",
    "comity keys sign intent-1a2b3c4d.ceremony.json --key token.toml --out /media/stick",
)
@command.command("sign", short_help="Sign a statement from a ceremony file.")
@click.argument("file", type=FILE)
@click.option("--key", "keys", multiple=True, type=FILE, help="Your key: a PEM file, or a token's TOML file.")
@click.option(
    "--from", "carried", multiple=True, type=FOLDER, help="A folder of carried lines, with which the plan is checked."
)
@click.option("--out", type=NEW_FOLDER, help="When complete: write the line into this folder, to be carried.")
@member_node_options("When complete: log it at this node.", "", default=None)
@click.option("--yes", is_flag=True, help="Sign without asking; the plan is still shown.")
def sign(
    file: Path,
    keys: tuple[Path, ...],
    carried: tuple[Path, ...],
    out: Path | None,
    home: Path | None,
    to: str | None,
    yes: bool,
) -> None:
    """Show the statement of a ceremony file, described from the statement itself, and sign it with your key.

    Needs no network, no node and no federation, only a machine with the key. After the last signature, the same command
    without a key logs the line or writes it to a folder.
    """
    from comity_client.charter import proposals as acts
    from comity_client.charter.proposals import plan_carried
    from comity_client.signing.votes import MAX_CEREMONY_FILE, open_key

    from comity_cli.charter.signing import deliver, show_plan, write_ceremony

    plan = plan_carried(read_bounded(file, MAX_CEREMONY_FILE), _local_charter_state(carried))
    context = CharterContext(home=home or Path(), to=to, out=out)
    show_plan(plan)
    if not plan.ceremony.complete:
        if not keys:
            raise click.UsageError("this statement needs more signatures: name your key with --key")
        governance_keys = [open_key(path) for path in keys]
        agree(f"Sign this with {', '.join(key.path.name for key in governance_keys)}?", yes=yes)
        for key in governance_keys:
            plan = acts.sign_plan(plan, key)
    if plan.ceremony.complete and (out, to, home) != (None, None, None):
        deliver(context, plan)
    else:
        write_ceremony(plan, file)


@examples("comity keys recover-votes --node node-ch --key governance.pem")
@command.command("recover-votes", short_help="Vote again with a key whose vote file was lost.")
@signing_options
def recover_votes(**options: Any) -> None:
    """Allow a key whose vote file was lost to vote in this epoch. Needs the copies of your home log from every other
    active member. Doing nothing is safe: the key does not vote in one epoch, which the quorum tolerates."""
    from comity_client.charter import keys as recovery

    context, out = CharterContext(**options), output()
    for key in context.governance_keys:
        decided = recovery.prepare_resumption(context.charter_state, key, context.governance.material_by_member())
        out.say(f"{key.path}: {plural(len(decided.found), 'vote')} of this epoch found at {', '.join(decided.copies)}")
        out.warn(decided.risk)
        agree("Vote with this key in this epoch?", yes=context.yes)
        recovery.resume_voting(decided)
        out.done(f"{key.path} may sign again; its vote file lists {plural(len(decided.found), 'vote')}")
    out.document("recovered", {"keys": [str(key.path) for key in context.governance_keys]})


def _apply(context: CharterContext, rotated: Plan) -> None:
    """Write a complete rotation to the home, renew the node record under the new keys, and deliver both."""
    from comity_client.charter import keys as rotating
    from comity_client.charter import proposals as acts
    from comity_client.node_home import OFFLINE
    from comity_client.signing.votes import find_keys

    from comity_cli.charter.signing import deliver

    renewed = rotating.apply_rotation(context.home, rotated)
    keys = find_keys(context.home / OFFLINE, rotating.own_chain(rotated.charter_state, context.home).current.keys)
    renewed = acts.sign_plan_with_all(renewed, keys)
    if renewed.ceremony.complete:
        rotating.apply_node_record(context.home, renewed)
    out = output()
    out.done(
        f"your member has new keys: {_folders(key.path for key in keys)}. Move them to a medium that is not connected"
    )
    if renewed.ceremony.complete:
        deliver(context, rotated, renewed.material)
    else:
        deliver(context, rotated)
        out.warn("more of the new keys must sign the node record")
    seat = rotated.charter_state.current.member(context.chain.start.identity)
    if seat is not None:
        name = shlex.quote(seat.name)
        out.hint(f"propose them for the charter: comity proposal new rekey {name} --node {context.home}")


def _folders(paths: Any) -> str:
    return ", ".join(sorted({str(path.parent) for path in paths}))


def _local_charter_state(carried: Sequence[Path]) -> CharterState | None:
    """The charter state from local pins and carried lines; None unless exactly one federation is pinned."""
    from comity_client.charter.state import federation_charter_state, read_folder

    pins = client().pins()
    if len(pins) != 1:
        return None
    return federation_charter_state(pins[0].federation, *(read_folder(folder) for folder in carried))
