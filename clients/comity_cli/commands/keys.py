"""`comity keys`: the keys that decide about a member's seat; they lie on a desk, not in the node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from comity.trust.encoding import grouped, syllables
from comity.verifier import read_bounded

from comity_cli.command import Group, agree, client, examples, output
from comity_cli.files import FILE, FOLDER, NEW_FOLDER
from comity_cli.charter.office import Office, acting_options, reading_options
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.charter.proposals import Plan
    from comity_client.charter.state import CharterState


@examples(
    "comity keys show --dir node-ch",
    "comity keys rotate --dir node-ch --recovery /media/vault/recovery.pem",
    "comity keys sign intent-1a2b3c4d.ceremony.json --key governance-2.pem",
)
@click.group(cls=Group, name="keys", short_help="Show, change and use the keys of your seat.")
def command() -> None:
    """The governance keys speak for your member; the recovery keys can change them, and need nobody's leave for it."""


@examples("comity keys show --dir node-ch", "comity keys show --dir node-ch --json")
@command.command("show", short_help="Show your member's keys, and what they may sign now.")
@click.option("--dir", "home", type=FOLDER, default=Path(), help="The home of your member's node. Default: here.")
@reading_options
def show(home: Path, **options: Any) -> None:
    """Show which keys speak for your member, which of them are here, and whether their vote state is whole."""
    from comity_client.founding import OFFLINE
    from comity_client.signing.votes import find_keys

    office, out = Office(home=home, **options), output()
    chain, prev = office.chain, office.sitting.current.digest
    keys = chain.current.keys
    here = {key.public.id: key for key in find_keys(home / OFFLINE, keys)}
    seat = office.sitting.current.member(chain.start.identity)
    out.say(f"Member {syllables(chain.start.identity)}   {grouped(chain.start.identity)}")
    out.fact("seat", f"{seat.name} ({seat.jurisdiction}), {seat.status}" if seat else "none in the current charter")
    out.fact(
        "speaks by",
        f"{keys.threshold} of {plural(len(keys.keys), 'key')}, after {plural(len(chain.steps), 'rotation')}",
    )
    if chain.disputes:
        out.warn("two rotations of these keys exclude one another; nobody can say which is yours")
    rows, listed = [], []
    for key in keys.keys:
        found = here.get(key.id)
        lost = found.votes.look(prev).lost(prev) if found else None
        state = "not here" if not found else f"sits out this epoch: {lost.why}" if lost else "may sign"
        kind = " + ".join(half.alg for half in key.halves)
        rows.append((key.id[:16], kind, str(found.path) if found else "-", state))
        listed.append({"id": key.id, "kind": kind, "path": str(found.path) if found else None, "state": state})
    out.table(("key", "kind", "file", "state"), rows)
    out.fact("recovery", ", ".join(digest[:16] for digest in chain.current.recovery) or "none: never to be changed")
    out.document(
        "keys",
        {
            "member": chain.start.identity,
            "seat": seat.name if seat else None,
            "threshold": keys.threshold,
            "rotations": len(chain.steps),
            "disputed": bool(chain.disputes),
            "keys": listed,
            "recovery": list(chain.current.recovery),
        },
    )


@examples(
    "comity keys rotate --dir node-ch",
    "comity keys rotate --dir node-ch --recovery /media/vault/recovery.pem --governance-keys 3",
    "comity keys rotate --dir node-ch --signed rotated-1a2b3c4d.ceremony.json",
)
@command.command("rotate", short_help="Give your member new keys, by its recovery keys.")
@click.option(
    "--recovery", "recovery", multiple=True, type=FILE, help="A recovery key. Default: those in HOME/offline."
)
@click.option("--governance-keys", default=1, show_default=True, help="How many keys decide from now on.")
@click.option("--threshold", type=int, help="How many of them must sign. Default: more than half.")
@click.option("--recovery-keys", default=1, show_default=True, help="How many new recovery keys.")
@click.option("--token", "tokens", multiple=True, type=FILE, help="TOML file of one more governance key, in an HSM.")
@click.option("--signed", type=FILE, help="Take up a rotation that others have signed: its ceremony file.")
@acting_options
def rotate(
    recovery: tuple[Path, ...],
    governance_keys: int,
    threshold: int | None,
    recovery_keys: int,
    tokens: tuple[Path, ...],
    signed: Path | None,
    **options: Any,
) -> None:
    """Give your member new governance and recovery keys. The recovery keys sign; no vote, node or other member can do
    it for you, or forbid it. The old keys go on verifying what they signed; how long your log is now (asked of the
    nodes, unless --offline) is written down, so that nobody can use the old keys to sign as of yesterday."""
    from comity_client.charter import keys as rotating
    from comity_client.charter import proposals as acts
    from comity_client.charter.proposals import plan_carried
    from comity_client.founding import OFFLINE, own_inception
    from comity_client.signing.seat_keys import SeatShape
    from comity_client.signing.votes import MAX_CEREMONY_FILE, open_key

    from comity_cli.charter.signing import pass_on, show_plan

    office = Office(**options)
    if signed is not None:
        office.check_destination()
        _take_up(office, plan_carried(read_bounded(signed, MAX_CEREMONY_FILE), office.sitting))
        return
    files = recovery or tuple(sorted((office.home / OFFLINE).rglob("recovery*.pem")))
    used = [key for key in map(open_key, files) if key.public.id in office.chain.current.recovery]
    shape = SeatShape(governance_keys - len(tokens), threshold, recovery_keys, tokens)
    cut = () if office.offline else (client().cut(own_inception(office.home).home),)
    prepared = rotating.prepare_rotation(office.sitting, office.home, shape, [key.public for key in used], cut=cut)
    show_plan(prepared.plan)
    office.check_destination()
    agree("Make these keys, and sign with the recovery keys?", yes=office.yes)
    rotated = acts.sign_plan_with_all(prepared.begin(), used)
    if rotated.ceremony.complete:
        _take_up(office, rotated)
        return
    file = pass_on(rotated)
    output().hint(f"when all have signed: comity keys rotate --dir {office.home} --signed {file}")


@examples(
    "comity keys sign intent-1a2b3c4d.ceremony.json --key governance-2.pem",
    "comity keys sign intent-1a2b3c4d.ceremony.json --key token.toml --out /media/stick",
)
@command.command("sign", short_help="Put your signature to a statement that somebody brought.")
@click.argument("file", type=FILE)
@click.option("--key", "keys", multiple=True, type=FILE, help="Your key: a PEM file, or a token's TOML.")
@click.option("--from", "carried", multiple=True, type=FOLDER, help="A folder of carried lines, to judge the plan by.")
@click.option("--out", type=NEW_FOLDER, help="When complete: write the line into this folder, to be carried.")
@click.option("--dir", "home", type=FOLDER, help="When complete: log it at the node of this home.")
@click.option("--to", metavar="NODE", help="When complete: log it there.")
@click.option("--yes", is_flag=True, help="Sign without asking; the plan is shown all the same.")
def sign(
    file: Path,
    keys: tuple[Path, ...],
    carried: tuple[Path, ...],
    out: Path | None,
    home: Path | None,
    to: str | None,
    yes: bool,
) -> None:
    """Show what a ceremony file asks you to sign, in words made from the statement itself, and sign it with your key.

    Needs no network, no node and no federation: a machine that holds a key is enough. Once all have signed, the same
    command without a key hands the line on.
    """
    from comity_client.charter import proposals as acts
    from comity_client.charter.proposals import plan_carried
    from comity_client.signing.votes import MAX_CEREMONY_FILE, open_key

    from comity_cli.charter.signing import deliver, pass_on, show_plan

    plan = plan_carried(read_bounded(file, MAX_CEREMONY_FILE), _known(carried))
    office = Office(home=home or Path(), to=to, out=out)
    show_plan(plan)
    if not plan.ceremony.complete:
        if not keys:
            raise click.UsageError("this statement still has to be signed: name your key with --key")
        desk = [open_key(path) for path in keys]
        agree(f"Sign this with {', '.join(key.path.name for key in desk)}?", yes=yes)
        for key in desk:
            plan = acts.sign_plan(plan, key)
    if plan.ceremony.complete and (out, to, home) != (None, None, None):
        deliver(office, plan)
    else:
        pass_on(plan, file)


@examples("comity keys recover-votes --dir node-ch --key governance.pem")
@command.command("recover-votes", short_help="Vote again with a key whose vote state was lost.")
@acting_options
def recover_votes(**options: Any) -> None:
    """Decide that a key whose vote state was lost may vote in this epoch all the same. Needs what every other active
    member mirrored of your home log. To do nothing is safe: the key sits out one epoch, which the quorum tolerates."""
    from comity_client.charter import keys as recovery

    office, out = Office(**options), output()
    for key in office.desk:
        decided = recovery.weigh_recovery(office.sitting, key, office.chamber.copies())
        out.say(
            f"{key.path}: {plural(len(decided.found), 'reading')} of this epoch found at {', '.join(decided.copies)}"
        )
        out.warn(decided.risk)
        agree("Vote with this key in this epoch?", yes=office.yes)
        recovery.resume_voting(decided)
        out.done(f"{key.path} may sign again, knowing of {plural(len(decided.found), 'reading')}")
    out.document("recovered", {"keys": [str(key.path) for key in office.desk]})


def _take_up(office: Office, rotated: Plan) -> None:
    """Note a complete rotation in the home, renew the node record under the new keys, and hand both over."""
    from comity_client.charter import keys as rotating
    from comity_client.charter import proposals as acts
    from comity_client.founding import OFFLINE
    from comity_client.signing.votes import find_keys

    from comity_cli.charter.signing import deliver

    renewed = rotating.take_up_rotation(office.home, rotated)
    keys = find_keys(office.home / OFFLINE, rotating.own_chain(rotated.sitting, office.home).current.keys)
    renewed = acts.sign_plan_with_all(renewed, keys)
    if renewed.ceremony.complete:
        rotating.take_up_record(office.home, renewed)
    out = output()
    out.done(
        f"your member has new keys: {_folders(key.path for key in keys)}. Move them to a medium that is not connected"
    )
    if renewed.ceremony.complete:
        deliver(office, rotated, renewed.material)
    else:
        deliver(office, rotated)
        out.warn("the node record must still be signed by more of the new keys")
    seat = rotated.sitting.current.member(office.chain.start.identity)
    if seat is not None:
        out.hint(f"have the charter list them: comity proposal new rekey '{seat.name}' --dir {office.home}")


def _folders(paths: Any) -> str:
    return ", ".join(sorted({str(path.parent) for path in paths}))


def _known(carried: Sequence[Path]) -> CharterState | None:
    """What this machine knows by itself; None where it pins nothing, as one that holds a key and nothing else."""
    from comity_client.charter.state import of_federation, read_folder

    pins = client().pins()
    if len(pins) != 1:
        return None
    return of_federation(pins[0].federation, *(read_folder(folder) for folder in carried))
