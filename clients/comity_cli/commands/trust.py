"""`comity trust pin|show|diff|bind|hold|unbind|unpin`: the user's own trust decisions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from comity.installed_addons import from_addons
from comity.trust.encoding import Digest, syllables
from comity.trust.frozen import frozen

from comity_cli.command import Group, agree, client, examples, output, user
from comity_cli.document import document, members
from comity_cli.files import FILE
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity.federation_file import Federation
    from comity_client.trust_store import Bindings, CharterDiff


@document("pin")
class PinDocument:
    """A pin, as `comity trust pin --json` made it.

    `relation` of the file to the charter that was pinned before.
    """

    federation: Digest
    body: Digest
    epoch: int
    relation: Annotated[str, {"enum": ["new", "same", "forward", "back", "fork"]}]
    file: Path


@frozen
class PinnedItem:
    """A pinned federation, and its file."""

    federation: Digest
    body: Digest
    file: Path


@document("trust")
class TrustDocument:
    """Pins and bindings, as `comity trust show --json` prints them."""

    pins: tuple[PinnedItem, ...]
    bindings: Bindings


@document("binding")
class BindingDocument:
    """What a name means here, as `comity trust bind --json` and `comity trust unbind --json` print it.

    `target`: of a publisher, or of an artifact; null once it is no longer bound.
    """

    name: str
    target: Digest | None


@document("held")
class HeldDocument:
    """A publisher that is pinned to the keys of a rotation, as `comity trust hold --json` prints it."""

    identity: str
    rotation: str


@document("unpin")
class UnpinDocument:
    """The federation that is no longer pinned, as `comity trust unpin --json` prints it."""

    federation: Digest


@examples(
    "comity trust pin federation.json",
    "comity trust diff new-federation.json",
    "comity trust bind swiss-ai 51aa…",
)
@click.group(cls=Group, name="trust", short_help="Pin a federation, and see what is pinned.")
def command() -> None:
    """Decide whom to trust. Pins are local files; no server, charter or peer can change them."""


for _commands in from_addons("trust_commands"):
    for _added in _commands():
        command.add_command(_added)


@examples(
    "comity trust pin federation.json", "comity trust pin federation.json --words 'babad-cadef-…'", "comity trust pin"
)
@command.command("pin", short_help="Pin a federation file, or the newest charter that nodes can prove.")
@click.argument("file", type=FILE, required=False)
@click.option("--yes", is_flag=True, help="Pin without asking.")
@click.option("--words", help="The federation's words, as two members read them to you; fails unless they match.")
@click.option("--branch", is_flag=True, help="Pin it even if the pinned charter does not lead to it.")
@click.option("--federation", default="", metavar="ID", help="Without FILE: which pinned federation.")
def pin(file: Path | None, yes: bool, words: str | None, branch: bool, federation: str) -> None:
    """Show what FILE would change, and pin it. Get it from two members through separate channels and compare the words.

    Without FILE: move the pin to the newest epoch that the nodes of the pinned federation can prove by certificates.
    Only this command, and `comity join` once you are a member, move a pin: a charter that arrives with an artifact
    changes no verdict.
    """
    from comity_cli.charter.rendering import compare_words

    out, api = output(), client()
    new = _federation(file, federation)
    found = api.diff(new)
    compare_words(words, found.federation)
    out.prose(f"Federation {syllables(found.federation)}   {found.federation}")
    _show_diff(out, found)
    if found.relation == "same" and not found.changes:
        out.say("It is pinned already; nothing changes.")
    else:
        agree(
            "Pin this federation?" if found.old is None else "Replace the pinned charter by this one?",
            yes=yes or (words is not None and found.old is None),
        )
    pinned = api.pin(new, branch=branch)
    out.done(f"pinned charter of epoch {pinned.federation.body.epoch}, body sha256:{pinned.body}")
    epoch = pinned.federation.body.epoch
    out.answer(PinDocument(pinned.id, pinned.body, epoch, found.relation, pinned.file))
    out.hint("comity search   then   comity pull NAME")


@examples("comity trust show", "comity trust show --json")
@command.command("show", short_help="Show pins and bindings.")
def show() -> None:
    """Show the pinned federations, their members, and your own bindings of names."""
    out, store = output(), user().trust_store()
    pins, bindings = tuple(store.pins()), store.bindings()
    for item in pins:
        body = item.federation.body
        title = f"Federation {syllables(item.id)}: epoch {body.epoch}, {plural(len(body.members), 'member')}"
        out.say(f"{title}\n  sha256:{item.body}\n  {item.file}")
        out.table(
            ("member", "jur", "on the phone", "status"),
            [(m.name, m.jurisdiction, syllables(m.id), m.status) for m in body.members],
        )
        for namespace, publisher in body.namespaces.items():
            out.say(f"  {namespace}/…  is bound by the charter to publisher {publisher}")
    for name, target in {**bindings.publishers, **bindings.artifacts}.items():
        out.say(f"  {name}  is bound by you to {target}")
    for identity, rotation in bindings.rotations.items():
        out.say(f"  {identity}  is pinned by you to rotation {rotation}")
    if not pins:
        out.say("No federation is pinned: nothing can be trusted yet.")
        out.hint("comity trust pin FILE")
    out.answer(TrustDocument(tuple(PinnedItem(p.id, p.body, p.file) for p in pins), bindings))


@examples("comity trust diff new-federation.json", "comity trust diff")
@command.command("diff", short_help="Show what pinning a file, or the newest charter, would change.")
@click.argument("file", type=FILE, required=False)
@click.option("--federation", default="", metavar="ID", help="Without FILE: which pinned federation.")
def diff(file: Path | None, federation: str) -> None:
    """Show what pinning FILE would change, or without FILE the newest charter that nodes can prove. Changes nothing."""
    out = output()
    found = client().diff(_federation(file, federation))
    _show_diff(out, found)
    if not found.changes:
        out.say("Nothing would change.")
    out.document(
        "diff",
        {
            "federation": found.federation,
            "old": found.old,
            "new": found.new,
            "relation": found.relation,
            "epochs": list(found.epochs),
            "changes": [members(change) for change in found.changes],
        },
    )
    which = shlex.quote(str(file)) if file else f"--federation {found.federation[:16]}" if federation else ""
    if found.changes:
        out.hint(f"comity trust pin {which}".rstrip())


@examples("comity trust bind swiss-ai 51aa…", "comity trust bind swiss-ai/apertus-8b@v1 sha256:9f2c…")
@command.command("bind", short_help="Bind a namespace or a name.")
@click.argument("name")
@click.argument("target")
@click.option("--yes", is_flag=True, help="Do not ask, if nodes said what an abbreviated TARGET is.")
def bind(name: str, target: str, yes: bool) -> None:
    """Bind a namespace to a publisher's identity, or a name to an artifact's digest. Overrides charters.

    TARGET has 64 digits, or is spelled as `comity publisher new` prints it, or has 8 or more digits of an id that you
    know or that nodes list; in that last case you are asked."""
    out, api = output(), client()
    found = api.find_target(name, target)
    if found.claimed:
        out.say(f"{target} is {found.id}{f'  {found.label}' * bool(found.label)}, as nodes claim")
        agree("Compare all digits with its publisher. Bind the name to it?", yes=yes)
    api.bind(name, found.id)
    out.done(f"{name} is now bound to {found.id} here")
    out.answer(BindingDocument(name, found.id))


@examples("comity trust hold 51aa… 77b0…")
@command.command("hold", short_help="Pin a publisher to its newer keys.")
@click.argument("identity")
@click.argument("rotation")
def hold(identity: str, rotation: str) -> None:
    """Pin a publisher to the keys of ROTATION, whose digest it gave you through a channel that you trust. From now on a
    signature of its retired keys counts only with proof that it was logged before, since the keys may be stolen."""
    client().pin_rotation(identity, rotation)
    output().done(f"{identity} is now pinned to rotation {rotation} here")
    output().answer(HeldDocument(identity, rotation))


@examples("comity trust unbind swiss-ai")
@command.command("unbind", short_help="Remove a binding.")
@click.argument("name")
def unbind(name: str) -> None:
    """Remove your binding of NAME."""
    client().unbind(name)
    output().done(f"{name} is no longer bound by you")
    output().answer(BindingDocument(name, None))


@examples("comity trust unpin 8fe83c74…")
@command.command("unpin", short_help="Remove the pin of a federation.")
@click.argument("federation")
def unpin(federation: str) -> None:
    """Remove the pin of a federation, by its id or 8 or more digits of it. Its cosignatures no longer count here."""
    found = client().unpin(federation)
    output().done(f"federation {found} is no longer pinned")
    output().answer(UnpinDocument(found))


def _federation(file: Path | None, federation: str) -> Federation:
    """What a federation file holds, or without one the newest that the nodes of a pinned federation can prove."""
    from comity.federation_file import read_federation

    from comity_cli.charter.context import CharterContext
    from comity_cli.charter.rendering import show_following

    if file is not None:
        return read_federation(file)
    context = CharterContext(federation=federation)
    if (found := context.governance.following(context.charter_state)).ahead:
        lacked = context.governance.lacked(context.charter_state)
        show_following(output(), found, lacked, context.deliver_command)
    return context.governance.newest_federation(context.charter_state)


def _show_diff(out: Output, found: CharterDiff) -> None:
    from comity_cli.charter.rendering import show_changes

    show_changes(out, found.changes)
    before, after = found.epochs
    if found.relation == "forward":
        out.say(
            f"The pinned charter of epoch {before} leads to this one of epoch {after}, by certificates of its members."
        )
    elif found.relation == "back":
        out.warn(f"this file ends at epoch {after}, but epoch {before} is pinned: the file is older")
    elif found.relation == "fork":
        out.warn(
            f"FORK: both continue epoch {found.common} with different charters; only you can decide which is right"
        )
