"""`comity import`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.names import GIT, LISTED, OCI, S3, is_upstream
from comity.trust.upstream import GIT_REPOSITORY, HUB, check_endpoint, endpoint_host

from comity_cli.command import Command, client, examples, options_as, output
from comity_cli.commands.publish import LoggedEntry
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.following import follow
from comity_cli.mirroring import card_licence, licence_is_listed
from comity_cli.nodes import node_option
from comity_cli.output import Output

if TYPE_CHECKING:
    from comity.trust.upstream import Matched
    from comity_client.importing import Imported, UpstreamState


@document("import")
class ImportDocument:
    """What a node fetched from an upstream and logged, as `comity import --json` prints it.

    `before`: it was logged already.
    """

    name: str
    artifact: Digest
    endpoint: str
    requested: str
    obtained: str
    matched: Matched
    unchecked: tuple[str, ...]
    licence: str
    licence_is_listed: bool | None
    gated: str
    before: bool
    logged: LoggedEntry

    @classmethod
    def of(cls, done: Imported) -> ImportDocument:
        observed, logged = done.observed, done.logged
        return cls(
            name=observed.upstream.name,
            artifact=observed.artifact,
            endpoint=observed.upstream.endpoint,
            requested=observed.upstream.requested,
            obtained=observed.obtained.how,
            matched=observed.matched,
            unchecked=observed.unchecked,
            licence=observed.conditions.licence,
            licence_is_listed=licence_is_listed(observed.conditions),
            gated=observed.conditions.gated,
            before=done.before,
            logged=LoggedEntry(logged.node, logged.origin, logged.index),
        )


@document("upstream-check")
class UpstreamCheckDocument:
    """The state of an upstream, as `comity import --recheck --json` prints it.

    `state`: same, changed to the commit `successor`, or gone, and `lost` says what.
    """

    name: str
    state: str
    successor: str
    lost: str


UNCHECKED = {
    "commit": "that the commit names this list of files",
    "author": "who made the commit",
    "tls": "the upstream's certificate (no file was requested from it over TLS)",
    "xet": "Xet hashes",
    "upstream": "that the upstream has this commit (it was not asked)",
}
LOST = {
    "repository": "the repository no longer exists",
    "commit": "the repository no longer has this commit",
    "revision": "the branch or tag no longer exists; the commit does",
    "access": "the upstream no longer gives this node access to the repository",
}


@frozen
class UpstreamOptions:
    """Where a repository is fetched from, under which accepted terms; or where a folder is from."""

    endpoint: str
    hosts: tuple[str, ...]
    terms: Path | None
    claimed: str


@examples(
    "comity import hf:org/name --node /var/lib/comity",
    "comity import hf:org/name@v1.0 --node /srv/comity/operator.sock",
    "comity import hf:org/gated --accept-terms terms.txt --token-file token",
    "comity import https://models.example.org/pub/tiny",
    "comity import s3://s3.example.org/bucket/tiny",
    "comity import oci://registry.example.org/org/tiny@v1",
    "comity import git+https://git.example.org/org/tiny@v1",
    "comity import ~/.cache/huggingface/hub/models--org--name",
    "comity import ./carried --from hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127",
    "comity import --recheck hf:org/name@6c1277e6c1277e6c1277e6c1277e6c1277e6c127",
)
@click.command(cls=Command, name="import", short_help="Mirror files of an upstream through your node, and log it.")
@click.argument("source", metavar="hf:ORG/NAME[@REV]|URL[@REV]|DIR")
@node_option("Your node, by its home or operator socket. Default: here.", old=("--dir",))
@click.option("--endpoint", default="", metavar="URL", help="Another Hub, or the URL above NAME.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Another host that may serve the files.",
)
@click.option(
    "--accept-terms", "terms", type=FILE, help="A text file with the terms of a gated repository that you accepted."
)
@click.option("--token-file", type=FILE, help="A token of the upstream, sent only to the endpoint.")
@click.option(
    "--from", "claimed", default="", metavar="hf:ORG/NAME@COMMIT", help="The repository and commit of the folder."
)
@click.option("--recheck", is_flag=True, help="Ask the upstream again, and log a change or removal.")
@options_as("upstream", UpstreamOptions)
def command(source: str, node: str | None, upstream: UpstreamOptions, token_file: Path | None, recheck: bool) -> None:
    """Make your node fetch a commit of a repository, files of a web server, a bucket, an OCI registry or a git server,
    or a folder on its machine: hash every byte, compare with the upstream's hashes, and log an `observed` statement
    ("mirrored from"). This is not a publication: the upstream vouches for its hashes, your node for the fetch. Run the
    command again to continue."""
    from comity_client.importing import read_token
    from comity_client.own_node import own_socket

    out, api, target, token = output(), client(), str(own_socket(node)), read_token(token_file)
    if recheck:
        _show_check(out, api.check_upstream(source, target, token=token))
        return
    if source.startswith(_URLS):
        source, upstream = _of_url(source, upstream)
    named = is_upstream(source)
    if named and upstream.claimed:
        raise click.UsageError("--from is for a folder only")
    if not named and not Path(source).is_dir():
        raise click.UsageError(f"{source!r} is neither hf:org/name, a URL (https, s3, oci, git+https) nor a folder")
    with follow(out, "importing") as on_event:
        done = api.import_upstream(
            source if named else Path(source),
            target,
            endpoint=upstream.endpoint,
            hosts=upstream.hosts,
            terms=upstream.terms.read_bytes() if upstream.terms else b"",
            token=token,
            claimed=upstream.claimed,
            on_event=on_event,
        )
    _show(out, done)


def _of_url(url: str, options: UpstreamOptions) -> tuple[str, UpstreamOptions]:
    """`https:HOST/NAME[@REV]` with its endpoint, from a URL; the same for `s3:`, `oci:` and `git:`. Raises Malformed
    (BAD-ENDPOINT)."""
    if options.endpoint:
        raise click.UsageError("a URL names its endpoint: omit --endpoint")
    scheme, _, rest = url.rstrip("/").partition("//")
    location, at, revision = rest.partition("@")
    place, _, name = location.rstrip("/").rpartition("/")
    origin = _SCHEMES[f"{scheme}//"]
    if origin == GIT:
        name = name.removesuffix(".git")
    endpoint = check_endpoint(f"https://{place}")
    return f"{origin}{endpoint_host(endpoint)}/{name}{at}{revision}", replace(options, endpoint=endpoint)


_SCHEMES = {f"{origin}//": origin for origin in (LISTED, S3, OCI)} | {"git+https://": GIT}
_URLS = tuple(_SCHEMES)


def _show(out: Output, done: Imported) -> None:
    observed, logged = done.observed, done.logged
    upstream, matched = observed.upstream, observed.matched
    out.prose(f"{upstream.name}  sha256:{observed.artifact}")
    place = f"{upstream.endpoint}, {upstream.requested}" if observed.fetched else f"a folder ({observed.obtained.how})"
    out.fact("mirrored from", place)
    out.fact(
        "equal",
        observed.match_text + (f"; {matched.folders}/{matched.folders_listed} folders" * bool(matched.folders_listed)),
    )
    if upstream.kind in (HUB, GIT_REPOSITORY) and matched.pointers < matched.sha256:
        out.warn(f"{matched.sha256 - matched.pointers} LFS pointers differ from the upstream's list; the bytes do not")
    out.fact(
        "not checked", "; ".join(UNCHECKED[check] for check in observed.unchecked) or "nothing; every check was made"
    )
    if licence := card_licence(observed.conditions):
        out.fact("licence", licence)
    before = " before this call" if done.before else ""
    out.done(f"logged at {logged.node}{before}: entry {logged.index} of {logged.origin}, proven by a checkpoint")
    out.answer(ImportDocument.of(done))
    out.hint(f"comity show {upstream.name}")


def _show_check(out: Output, checked: UpstreamState) -> None:
    match checked.state:
        case "same":
            out.say(f"{checked.name}: the upstream is unchanged")
        case "changed":
            out.warn(f"{checked.name}: the upstream's branch or tag is now at {checked.successor}")
        case _:
            out.warn(f"{checked.name}: {LOST[checked.lost]}")
    if checked.state != "same":
        out.say(f"logged as entry {checked.index}; the mirrored artifact stays unchanged")
    out.answer(UpstreamCheckDocument(checked.name, checked.state, checked.successor, checked.lost))
