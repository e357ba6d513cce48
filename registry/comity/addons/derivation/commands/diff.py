"""`comity diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from comity_cli.command import Command, client, examples, output
from comity_cli.following import follow
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity.addons.derivation.diff import ComparedArtifact, Differences

SHOWN = 20


@examples(
    "comity diff inst/tiny@v1 inst/tiny@v2",
    "comity diff ./tiny ./tiny-tuned",
    "comity diff ./tiny inst/tiny@v2 --json",
)
@click.command(cls=Command, name="diff", short_help="Show the differences between two artifacts.")
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
def command(before: str, after: str) -> None:
    """Compare two artifacts, each a folder or a reference: files, tensors, configuration, tokenizer, licence, and the
    members that sign for them.

    Files on this machine are read, and small files are fetched. For other weights the hashes of pieces are compared,
    which nodes send and a tree hash proves. Licences and names are claims of the publishers.
    """
    from comity.addons.derivation.diff import compare

    out = output()
    with follow(out, "hashing") as on_event:
        found = compare(client(), before, after, on_event=on_event)
    _show(out, found)
    out.document("diff", _document(found))


def _show(out: Output, found: Differences) -> None:
    for sign, side in (("---", found.before), ("+++", found.after)):
        basis = "bytes hashed here" if side.folder else "by its manifest and claims; its bytes are not here"
        out.prose(f"{sign} {side.title}  sha256:{side.artifact}  ({basis})")
    if found.before.artifact == found.after.artifact:
        out.done("the same files, byte for byte")
    _show_files(out, found)
    _show_tensors(out, found)
    _show_texts(out, found)
    _show_claims(out, found)
    for why in found.unread:
        out.warn(f"not compared: {why}")


def _show_files(out: Output, found: Differences) -> None:
    files = found.files
    counts = (
        ("added", files.added),
        ("removed", files.removed),
        ("changed", files.changed),
        ("renamed", files.renamed),
    )
    out.fact(
        "files",
        ", ".join([f"{files.same} same", *(f"{len(entries)} {change}" for change, entries in counts if entries)]),
    )
    lines = [f"+ {entry.path}  {size(entry.size)}" for entry in files.added]
    lines += [f"- {entry.path}  {size(entry.size)}" for entry in files.removed]
    lines += [f"~ {old.path}  {size(old.size)} → {size(new.size)}" for old, new in files.changed]
    lines += [f"> {old.path} → {new.path}" for old, new in files.renamed]
    _list(out, lines)


def _show_tensors(out: Output, found: Differences) -> None:
    from comity.addons.derivation.diff import TensorChanges

    tensors = found.tensors
    if isinstance(tensors, TensorChanges):
        total = tensors.same + len(tensors.changed) + len(tensors.added)
        share = f"{size(tensors.same_bytes)} of {size(tensors.bytes)}"
        out.fact("tensors", f"{tensors.same} of {plural(total, 'tensor')} the same ({share}), read here")
        lines = [f"+ {name}" for name in tensors.added] + [f"- {name}" for name in tensors.removed]
        _list(out, lines + [f"~ {name}: {what}" for name, what in tensors.changed])
    elif tensors is not None:
        share = f"{size(tensors.shared)} of {size(tensors.bytes)}"
        out.fact("weights", f"{share} are in files or pieces that both have; tensors were not read")


def _show_texts(out: Output, found: Differences) -> None:
    for path, changes in found.keys.items():
        if changes is None:
            out.fact("settings", f"{path}: not a JSON object on one side")
            continue
        out.fact("settings", f"{path}: {plural(len(changes), 'key')} changed")
        _list(out, [f"~ {change.key}: {_value(change.before)} → {_value(change.after)}" for change in changes])
    if found.tokens is not None:
        tokens = found.tokens
        text = f"{tokens.added} tokens added, {tokens.removed} removed, {tokens.renumbered} with another number"
        out.fact("tokenizer", text + (f", such as {', '.join(map(repr, tokens.examples))}" if tokens.examples else ""))


def _show_claims(out: Output, found: Differences) -> None:
    before, after = (_licence(side) for side in (found.before, found.after))
    out.fact("licence", f"{before}, both as claimed" if before == after else f"{before} → {after}, as claimed")
    for old, new in found.vouching:
        out.fact(old.name, f"{old.state}: {old.summary}")
        out.fact("", f"→ {new.state}: {new.summary}")


def _list(out: Output, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        out.fact("", line)
    if len(lines) > SHOWN:
        out.fact("", f"and {len(lines) - SHOWN} more; --json lists all")


def _value(text: str | None) -> str:
    return "absent" if text is None else text


def _licence(side: ComparedArtifact) -> str:
    return side.published.licence.spdx if side.published else "none"


def _document(found: Differences) -> dict[str, Any]:
    files = found.files
    return {
        "before": _side(found.before),
        "after": _side(found.after),
        "files": {
            "same": files.same,
            "added": [entry.path for entry in files.added],
            "removed": [entry.path for entry in files.removed],
            "changed": [old.path for old, _ in files.changed],
            "renamed": [[old.path, new.path] for old, new in files.renamed],
        },
        "tensors": _tensors(found),
        "settings": {
            path: None if changes is None else {c.key: [c.before, c.after] for c in changes}
            for path, changes in found.keys.items()
        },
        "tokenizer": _tokens(found),
        "licence": [_licence(found.before), _licence(found.after)],
        "vouching": {
            before.name: [{"state": row.state, "summary": row.summary} for row in (before, after)]
            for before, after in found.vouching
        },
        "not_compared": list(found.unread),
    }


def _side(side: ComparedArtifact) -> dict[str, Any]:
    return {
        "title": side.title,
        "artifact": side.artifact,
        "basis": "bytes" if side.folder else "claims",
        "publisher": side.published.by if side.published else None,
    }


def _tensors(found: Differences) -> dict[str, Any] | None:
    from comity.addons.derivation.diff import TensorChanges

    tensors = found.tensors
    if tensors is None:
        return None
    if isinstance(tensors, TensorChanges):
        return {
            "basis": "tensors",
            "same": tensors.same,
            "same_bytes": tensors.same_bytes,
            "bytes": tensors.bytes,
            "added": list(tensors.added),
            "removed": list(tensors.removed),
            "changed": dict(tensors.changed),
        }
    return {"basis": "pieces", "same_bytes": tensors.shared, "bytes": tensors.bytes}


def _tokens(found: Differences) -> dict[str, Any] | None:
    tokens = found.tokens
    if tokens is None:
        return None
    return {"added": tokens.added, "removed": tokens.removed, "renumbered": tokens.renumbered}
