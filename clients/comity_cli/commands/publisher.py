"""`comity publisher new|rotate|show|ls`."""

from __future__ import annotations

from pathlib import Path

import click
from comity.trust.encoding import grouped, sha256, syllables

from comity_cli.command import Group, agree, client, examples, output
from comity_cli.files import FILE
from comity_cli.output import plural


@examples("comity publisher new 'Swiss AI' --jurisdiction CH", "comity publisher ls")
@click.group(cls=Group, name="publisher", short_help="Make and list publisher identities.")
def command() -> None:
    """A publisher is whoever signs "these bytes are my model": no seat, node or permission is needed to be one."""


@examples("comity publisher new 'Swiss AI' --jurisdiction CH --home node-ch.example.org/log")
@command.command("new", short_help="Make a publisher identity.")
@click.argument("label")
@click.option("--jurisdiction", required=True, help="Where it says that it is; cosigners there will not count.")
@click.option("--home", default="", help="The log (origin) that orders its statements, such as a yank.")
def new(label: str, jurisdiction: str, home: str) -> None:
    """Make hybrid keys (Ed25519 and ML-DSA-65) and the identity that they certify. They stay on this machine."""
    out = output()
    publisher = client().new_publisher(label, jurisdiction, home)
    out.done(f"publisher {publisher.label}")
    out.fact("id", publisher.id)
    out.fact("spelled", grouped(publisher.id))
    out.fact("on the phone", syllables(publisher.id))
    out.fact("keys", f"{publisher.folder}: move recovery.pem to another place")
    out.document("publisher", {"id": publisher.id, "label": publisher.label, "folder": str(publisher.folder)})
    out.hint("comity publish DIR --as namespace/name@v1 --licence SPDX-ID --node NODE")


@examples(
    "comity publisher rotate 'Swiss AI'",
    "comity publisher rotate 'Swiss AI' --recovery /media/vault/recovery.pem --node node-ch --node node-es",
)
@command.command("rotate", short_help="Give a publisher new keys, by its recovery key.")
@click.argument("label")
@click.option("--recovery", multiple=True, type=FILE, help="The recovery key, where it was moved to.")
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="Log it there. Default: at its home log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rotate(label: str, recovery: tuple[Path, ...], nodes: tuple[str, ...], yes: bool) -> None:
    """Give a publisher new keys; it stays who it is, and what it signed stays its own. Nobody else can do this, and
    nobody can forbid it. How long its home log is now is written down: the old keys cannot sign as of yesterday."""
    out, api = output(), client()
    publisher = api.publisher(label)
    out.say(
        f"New keys for publisher {publisher.label}, after {plural(len(publisher.rotation_lines), 'rotation')} so far."
    )
    agree("Make them, and spend the recovery key?", yes=yes)
    changed, logged = api.change_keys(publisher, recovery=recovery, nodes=nodes)
    out.done(f"publisher {changed.label} has new keys in {changed.folder}: move recovery.pem to another place")
    out.fact("rotation", str(changed.rotation))
    for item in logged:
        out.fact("logged at", f"{item.origin} #{item.index}")
    out.document(
        "publisher-rotated",
        {
            "id": changed.id,
            "rotation": changed.rotation,
            "logged": [{"origin": item.origin, "index": item.index} for item in logged],
        },
    )
    out.hint(f"who wants to hold it to these keys: comity trust hold {changed.id} {changed.rotation}")


@examples("comity publisher show 'Swiss AI'", "comity publisher show c7c0efe10f96 --json")
@command.command("show", short_help="Show one publisher identity, and by which keys it signs.")
@click.argument("label")
def show(label: str) -> None:
    """Show a publisher identity of this user: its id, its newest keys, and the public key of its model.sig files, which
    others list in their policies or give to other tools. Nothing secret is printed."""
    from comity_client.pull.model_sig import public_file

    out = output()
    publisher = client().publisher(label)
    public = public_file(publisher)
    pem = public.read_text("ascii") if public else None
    out.say(f"{publisher.label}  {publisher.id}")
    out.fact("spelled", grouped(publisher.id))
    out.fact("home", publisher.home or "none")
    out.fact("keys", f"{publisher.keys}, after {plural(len(publisher.rotation_lines), 'rotation')}")
    out.fact("model.sig", str(public) if public else "no key yet; comity publish --model-sig makes one")
    if pem:
        out.say(pem.rstrip())
    out.document(
        "publisher-shown",
        {
            "id": publisher.id,
            "label": publisher.label,
            "home": publisher.home,
            "folder": str(publisher.folder),
            "rotation": publisher.rotation,
            "model_sig": {"file": str(public), "pem": pem, "hint": sha256(pem.encode())} if public and pem else None,
        },
    )


@examples("comity publisher ls", "comity publisher ls --json")
@command.command("ls", short_help="List your publisher identities.")
def ls() -> None:
    """List the publisher identities of this user."""
    out = output()
    known = client().publishers()
    rows = [(p.label, p.inception.jurisdiction or "-", p.home or "-", p.id) for p in known]
    if known:
        out.table(("label", "jurisdiction", "home log", "id"), rows)
    else:
        out.say("None yet.")
        out.hint("comity publisher new LABEL --jurisdiction CODE")
    listed = [{"id": p.id, "label": p.label, "home": p.home, "folder": str(p.folder)} for p in known]
    out.document("publishers", {"publishers": listed})
