"""`comity import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from comity.trust.names import UPSTREAM

from comity_cli.command import Command, client, examples, output
from comity_cli.files import FILE
from comity_cli.following import follow
from comity_cli.output import Output

if TYPE_CHECKING:
    from comity_client.publish import Imported, UpstreamState

UNCHECKED = {
    "commit": "that the commit names this list of files",
    "author": "who made the commit",
    "tls": "the upstream's certificate (it was asked without TLS)",
    "xet": "Xet hashes",
    "upstream": "that the upstream has this commit at all (nobody was asked)",
}
LOST = {
    "repository": "the repository is no longer there",
    "commit": "the repository no longer has this commit",
    "revision": "the branch or tag is no longer there; the commit is",
    "access": "the upstream gives it out to nobody like this node any more",
}


@examples(
    "comity import hf:org/name --dir /var/lib/comity",
    "comity import hf:org/name@v1.0 --node /srv/comity/operator.sock",
    "comity import hf:org/gated --accept-terms terms.txt --token-file token",
    "comity import ~/.cache/huggingface/hub/models--org--name",
    "comity import ./carried --from hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127",
    "comity import --recheck hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127",
)
@click.command(cls=Command, name="import", short_help="Mirror a repository of a Hub through your node, and say so.")
@click.argument("source", metavar="hf:ORG/NAME[@REV]|DIR")
@click.option("--node", metavar="SOCKET", help="Your node, by its operator's socket.")
@click.option("--dir", "home", type=click.Path(path_type=Path), default=Path(), help="The same, by the node's home.")
@click.option("--endpoint", default="", metavar="URL", help="Another Hub than huggingface.co.")
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="HOST[:PORT]", help="From where else that Hub's files may come."
)
@click.option("--accept-terms", "terms", type=FILE, help="The terms of a gated repository that you accepted, as text.")
@click.option("--token-file", type=FILE, help="A token of the upstream's, which the endpoint alone is shown.")
@click.option("--from", "claimed", default="", metavar="hf:ORG/NAME@COMMIT", help="Where a folder is from.")
@click.option("--recheck", is_flag=True, help="Ask the upstream again, and log it where that changed or is gone.")
def command(
    source: str,
    node: str | None,
    home: Path,
    endpoint: str,
    hosts: tuple[str, ...],
    terms: Path | None,
    token_file: Path | None,
    claimed: str,
    recheck: bool,
) -> None:
    """Have your node fetch a commit of a repository, or take in a folder on its machine: hash every byte, compare with
    the upstream's own hashes, and log an `observed` statement, "mirrored from". It never says "published by": the
    upstream vouches for its hashes, your node for the fetch. Run it again to go on."""
    from comity_client.publish import read_token

    out, api, target, token = output(), client(), _socket(node, home), read_token(token_file)
    if recheck:
        _show_check(out, api.check_upstream(source, target, token=token))
        return
    hub = source.startswith(UPSTREAM)
    if hub and claimed:
        raise click.UsageError("--from says where a folder is from")
    if not hub and not Path(source).is_dir():
        raise click.UsageError(f"{source!r} is neither hf:org/name nor a folder")
    with follow(out, "importing") as on_event:
        done = api.import_upstream(
            source if hub else Path(source),
            target,
            endpoint=endpoint,
            hosts=hosts,
            terms=terms.read_bytes() if terms else b"",
            token=token,
            claimed=claimed,
            on_event=on_event,
        )
    _show(out, done)


def _socket(node: str | None, home: Path) -> str:
    from comity_client.session import socket_of

    return node or str(socket_of(home))


def _show(out: Output, done: Imported) -> None:
    said, logged = done.observed, done.logged
    upstream, matched = said.upstream, said.matched
    out.say(f"{upstream.name}  sha256:{said.artifact}")
    place = f"{upstream.endpoint}, {upstream.requested}" if said.fetched else f"a folder ({said.obtained.how})"
    out.fact("mirrored from", place)
    out.fact(
        "equal",
        said.likeness + (f"; {matched.folders}/{matched.folders_listed} folders" * bool(matched.folders_listed)),
    )
    if matched.pointers < matched.sha256:
        out.warn(f"{matched.sha256 - matched.pointers} LFS pointers are not what the upstream lists; the bytes are")
    out.fact("not checked", "; ".join(UNCHECKED[word] for word in said.unchecked) or "nothing was left out")
    if said.conditions.licence:
        out.fact("licence", f"{said.conditions.licence} (claimed by the upstream's card)")
    before = " before this call" if done.before else ""
    out.done(f"logged at {logged.node}{before}: entry {logged.index} of {logged.origin}, proven by a checkpoint")
    out.document("import", _document(done))
    out.hint(f"comity show {upstream.name}")


def _document(done: Imported) -> dict[str, Any]:
    said = done.observed
    return {
        "name": said.upstream.name,
        "artifact": said.artifact,
        "endpoint": said.upstream.endpoint,
        "requested": said.upstream.requested,
        "obtained": said.obtained.how,
        "matched": said.matched.to_json(),
        "unchecked": list(said.unchecked),
        "licence": said.conditions.licence,
        "gated": said.conditions.gated,
        "before": done.before,
        "logged": {"node": done.logged.node, "origin": done.logged.origin, "index": done.logged.index},
    }


def _show_check(out: Output, checked: UpstreamState) -> None:
    match checked.state:
        case "same":
            out.say(f"{checked.name}: the upstream stands where it stood")
        case "changed":
            out.warn(f"{checked.name}: the upstream's branch or tag stands at {checked.successor} now")
        case _:
            out.warn(f"{checked.name}: {LOST[checked.lost]}")
    if checked.state != "same":
        out.say(f"logged as entry {checked.index}; what was mirrored stays as it is")
    out.document(
        "upstream-check",
        {"name": checked.name, "state": checked.state, "successor": checked.successor, "lost": checked.lost},
    )
