"""`comity import`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest, format_moment
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
from comity_cli.output import Output, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comity.trust.upstream import Matched
    from comity.wire.upstream import QueuedImport
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


@document("import-queue")
class ImportQueueDocument:
    """The imports that a node keeps, as `comity import --queued --json` shows them.

    `failures`: tries that failed since bytes last arrived, and `why` the last one did. `queued` and `next_try` are
    POSIX seconds. A `size` or `next_try` of 0 is unknown, or there is none. `pinned`: the name with its commit, once it
    is known.
    """

    imports: tuple[QueuedImport, ...]


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


QUEUE, QUEUED, CANCEL = "queue", "queued", "cancel"


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
    "comity import --queue hf:org/name@v1.0",
    "comity import --queued",
    "comity import --cancel hf:org/name@v1.0",
)
@click.command(cls=Command, name="import", short_help="Mirror files of an upstream through your node, and log it.")
@click.argument("source", metavar="hf:ORG/NAME[@REV]|URL[@REV]|DIR", required=False)
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
@click.option("--token-file", type=FILE, help="A token of the upstream, sent to nobody else.")
@click.option(
    "--from", "claimed", default="", metavar="hf:ORG/NAME@COMMIT", help="The repository and commit of the folder."
)
@click.option("--recheck", is_flag=True, help="Ask the upstream again, and log a change or removal.")
@click.option("--queue", "asked", flag_value=QUEUE, help="Have the node keep the request, and try it for days.")
@click.option("--queued", "asked", flag_value=QUEUED, help="Show the queued imports. Takes no source.")
@click.option("--cancel", "asked", flag_value=CANCEL, help="End a queued import. What is logged stays.")
@options_as("upstream", UpstreamOptions)
def command(
    source: str | None,
    node: str | None,
    upstream: UpstreamOptions,
    token_file: Path | None,
    recheck: bool,
    asked: str | None,
) -> None:
    """Make your node fetch a commit of a repository, files of a web server, a bucket, an OCI registry or a git server,
    or a folder on its machine: hash every byte, compare with the upstream's hashes, and log an `observed` statement
    ("mirrored from"). This is not a publication: the upstream vouches for its hashes, your node for the fetch. Run the
    command again to continue.

    A queued import goes on without a command: after an outage or a limit on requests the node waits, an hour at most or
    as long as the upstream asks for, and tries again, also after a restart."""
    from comity_client.importing import read_token
    from comity_client.own_node import own_socket

    if asked and (token_file or upstream.terms or upstream.claimed or recheck):
        raise click.UsageError("a queued import is from a public upstream: no token, terms, --from or --recheck")
    if (source is None) != (asked == QUEUED):
        raise click.UsageError(
            "--queued takes no source" if asked == QUEUED else "name a repository, a URL or a folder"
        )
    source, upstream = _of_source(source, upstream, asked, recheck)
    out, api, token, target = output(), client(), read_token(token_file), str(own_socket(node))
    if source is None:
        _show_queue(out, api.queued_imports(target))
        return
    if recheck:
        _show_check(out, api.check_upstream(source, target, token=token))
        return
    if asked:
        api.decide_import(source, target, endpoint=upstream.endpoint, hosts=upstream.hosts, keep=asked == QUEUE)
        out.done(f"{source} is queued" if asked == QUEUE else f"{source} is queued no longer")
        out.hint("comity import --queued" + (f" --node {shlex.quote(node)}" if node else ""))
        return
    with follow(out, "importing") as on_event:
        done = api.import_upstream(
            source if is_upstream(source) else Path(source),
            target,
            endpoint=upstream.endpoint,
            hosts=upstream.hosts,
            terms=upstream.terms.read_bytes() if upstream.terms else b"",
            token=token,
            claimed=upstream.claimed,
            on_event=on_event,
        )
    _show(out, done)


def _of_source(
    source: str | None, upstream: UpstreamOptions, asked: str | None, recheck: bool
) -> tuple[str | None, UpstreamOptions]:
    """The name of an upstream with its options, or a folder. Raises click.UsageError for what does not fit together,
    Malformed (BAD-ENDPOINT, BAD-NAME)."""
    if any(not host or set(host) & set("/@ ") for host in upstream.hosts):
        raise click.UsageError("--allow-host is HOST or HOST:PORT, without https:// and without a path")
    if source is not None and source.startswith(_URLS):
        source, upstream = _of_url(source, upstream)
    if source is not None and not is_upstream(source):
        _check_folder(source, asked, recheck)
    elif upstream.claimed:
        raise click.UsageError("--from is for a folder only")
    return source, upstream


def _check_folder(source: str, asked: str | None, recheck: bool) -> None:
    """Raises click.UsageError for a folder that is not there, or where a repository is needed."""
    if not source or not Path(source).is_dir():
        raise click.UsageError(f"{source!r} is neither hf:org/name, a URL (https, s3, oci, git+https) nor a folder")
    if asked:
        raise click.UsageError("a folder is imported at once: omit --queue and --cancel")
    if recheck:
        raise click.UsageError("a folder has no upstream to ask again: name it as `comity show` does")


def _show_queue(out: Output, queued: Sequence[QueuedImport]) -> None:
    rows = [(item.name, item.state, _received(item), _next_try(item)) for item in queued]
    if rows:
        out.table(("import", "state", "bytes", "next try"), rows, shorten=("import",))
    else:
        out.say("No import is queued.")
    for item in queued:
        if item.why:
            out.warn(f"{item.name}: {item.why}; failed tries since bytes arrived: {item.failures}")
    out.answer(ImportQueueDocument(tuple(queued)))


def _received(item: QueuedImport) -> str:
    return f"{size(item.received)} of {size(item.size)}" if item.size else "not known"


def _next_try(item: QueuedImport) -> str:
    if item.next_try:
        return format_moment(item.next_try, "%Y-%m-%d %H:%M UTC")
    return "now" if item.state == "waiting" else ""


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
