"""`comity trust pin|show|diff|bind|unbind|unpin`: the owner's own decisions, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.digest import parse_digest
from comity.trust.spelling import syllables

from comity_cli.command import Group, client, examples, output
from comity_cli.output import Output, plural

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@examples(
    "comity trust pin federation.json",
    "comity trust diff new-federation.json",
    "comity trust bind swiss-ai 51aa…",
)
@click.group(cls=Group, name="trust", short_help="Pin a federation, and see what is pinned.")
def command() -> None:
    """Decide whom to believe. Pins are local files; no server, charter or peer can change them."""


@examples("comity trust pin federation.json", "comity trust pin federation.json --yes --json")
@command.command("pin", short_help="Hold on to a federation file.")
@click.argument("file", type=FILE)
@click.option("--yes", is_flag=True, help="Pin without asking.")
def pin(file: Path, yes: bool) -> None:
    """Show what FILE would change, and pin it. Get it from two members by separate ways and compare the words."""
    out, api = output(), client()
    diff = api.diff(file)
    fresh = diff.old is None
    out.say(f"Federation {syllables(diff.federation)}   {diff.federation}")
    _changes(out, [(c.what, c.name[:16], c.before, c.after) for c in diff.changes])
    if not diff.changes and diff.old == diff.new:
        out.say("It is pinned already; nothing changes.")
    elif not yes and not out.as_json:
        question = "Pin this federation?" if fresh else "Replace the pinned charter by this one?"
        click.confirm(question, abort=True, err=True)
    pinned = api.pin(file)
    out.done(f"pinned charter body sha256:{pinned.body}")
    out.document("pin", {"federation": pinned.id, "body": pinned.body, "file": str(pinned.file)})
    out.hint("comity search ''   then   comity pull NAME")


@examples("comity trust show", "comity trust show --json")
@command.command("show", short_help="Show what is pinned and what names are bound to.")
def show() -> None:
    """Show the pinned federations, their members, and your own bindings of names."""
    out, api = output(), client()
    pins, bindings = api.pins(), api.bindings()
    for item in pins:
        body = item.federation.body
        title = f"Federation {syllables(item.id)}: epoch {body.epoch}, {plural(len(body.members), 'member')}"
        out.say(f"{title}\n  charter body  sha256:{item.body}\n  file          {item.file}")
        out.table(
            ("member", "jurisdiction", "on the phone", "status"),
            [(m.name, m.jurisdiction, syllables(m.id), m.status) for m in body.members],
        )
        for namespace, publisher in body.namespaces.items():
            out.say(f"  {namespace}/…  is bound by the charter to publisher {publisher[:16]}")
    for name, target in {**bindings.publishers, **bindings.artifacts}.items():
        out.say(f"  {name}  is bound by you to {target}")
    if not pins:
        out.say("No federation is pinned: nothing can be believed yet.")
        out.hint("comity trust pin FILE")
    out.document(
        "trust",
        {
            "pins": [{"federation": p.id, "body": p.body, "file": str(p.file)} for p in pins],
            "bindings": {"publishers": dict(bindings.publishers), "artifacts": dict(bindings.artifacts)},
        },
    )


@examples("comity trust diff new-federation.json")
@command.command("diff", short_help="Show what pinning a file would change.")
@click.argument("file", type=FILE)
def diff(file: Path) -> None:
    """Show what pinning FILE would change, and change nothing."""
    out = output()
    found = client().diff(file)
    _changes(out, [(c.what, c.name[:16], c.before, c.after) for c in found.changes])
    if not found.changes:
        out.say("Nothing would change.")
    changes = [{"what": c.what, "name": c.name, "before": c.before, "after": c.after} for c in found.changes]
    out.document("diff", {"federation": found.federation, "old": found.old, "new": found.new, "changes": changes})
    out.hint(f"comity trust pin {file}")


@examples("comity trust bind swiss-ai 51aa…", "comity trust bind swiss-ai/apertus-8b@v1 sha256:9f2c…")
@command.command("bind", short_help="Say what a namespace or a name means to you.")
@click.argument("name")
@click.argument("target")
def bind(name: str, target: str) -> None:
    """Bind a namespace to a publisher's identity, or a name to an artifact's digest, whatever charters say."""
    client().bind(name, target)
    output().done(f"{name} means {target} here from now on")
    output().document("binding", {"name": name, "target": target})


@examples("comity trust unbind swiss-ai")
@command.command("unbind", short_help="Forget a binding of yours.")
@click.argument("name")
def unbind(name: str) -> None:
    """Forget what NAME was bound to by you."""
    client().unbind(name)
    output().done(f"{name} is no longer bound by you")
    output().document("binding", {"name": name, "target": None})


@examples("comity trust unpin 8fe83c74…")
@command.command("unpin", short_help="Let go of a federation.")
@click.argument("federation")
def unpin(federation: str) -> None:
    """Let go of a pinned federation, by its 64-digit id. What it cosigned counts no more here."""
    client().unpin(parse_digest(federation))
    output().done(f"federation {federation} is no longer pinned")
    output().document("unpin", {"federation": federation})


def _changes(out: Output, rows: list[tuple[str, str, str, str]]) -> None:
    if rows:
        out.table(("what", "which", "before", "after"), [tuple(cell or "-" for cell in row) for row in rows])
