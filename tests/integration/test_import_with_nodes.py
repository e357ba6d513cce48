"""Imports through running nodes: what they log, which observations corroborate or contradict others, and what users
see.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from comity.content.ingest import ingest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import (
    ComityError,
    Conflict,
    Malformed,
    NotFound,
    Refused,
    Untrusted,
)
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import ModelKey
from comity.trust.model_signing.judging import ModelSigningRule
from comity.trust.statement import parse_entry
from comity.upstream.listed_files import parse_observations
from comity.wire.upstream import ImportOrder
from comity_client.evidence.artifact_info import ArtifactInfo
from comity_client.importing import Imported
from comity_client.pull.model_sig import sign_folder
from support.file_site import file_server
from support.forked import run_comity
from support.git_site import Lfs, git_site
from support.hub_like import Answer, HubLike, hub_like
from support.image_registry import image_registry, push
from support.importing import FILES, NAME, WEIGHTS, Importers, importers
from support.model_scope_site import model_scope_site
from support.s3 import S3Account
from support.seaweed import seaweed
from support.waiting import eventually

pytestmark = pytest.mark.slow

OTHER = {**FILES, "LICENSE": b"Ask first.\n"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Importers]:
    with importers(tmp_path_factory.mktemp("importers"), 3) as made:
        yield made


@pytest.fixture
def hub() -> Iterator[HubLike]:
    with hub_like() as made:
        yield made


def furnish(hub: HubLike, name: str, files: dict[str, bytes] = FILES, licence: str = "mit") -> str:
    """Make a repository for this test only; returns its commit."""
    hub.repository(name).card = {"license": licence}
    return hub.repository(name).commit({**files, "name.txt": name.encode()}).sha


def objects(running: Importers, *digests: str) -> list[bytes]:
    async def read() -> list[bytes]:
        async with running.home().client() as client:
            return [await client.object(Digest(digest)) for digest in digests]

    return asyncio.run(read())


def test_an_observation_says_what_was_mirrored_and_what_matched(running: Importers, hub: HubLike) -> None:
    commit = furnish(hub, "org/first")
    done = running.mirror(hub, source="hf:org/first")
    said = done.observed
    assert (said.upstream.name, said.upstream.requested) == (f"hf:org/first@{commit}", "main")
    assert (said.upstream.endpoint, said.obtained.how) == (hub.url, "fetched")
    assert said.by == running.home().record.node.id
    assert (said.matched.files, said.matched.compared, said.matched.pointers) == (len(FILES) + 1,) * 2 + (1,)
    assert said.matched.folders == said.matched.folders_listed == 1
    assert said.unchecked == ("commit", "author", "tls")
    assert done.logged.size > done.logged.index
    documents = (said.conditions.card, said.conditions.licence_text, said.files)
    card, licence, files = objects(running, *(item.digest for item in documents if item))
    assert (card, licence, said.conditions.licence) == (FILES["README.md"], FILES["LICENSE"], "mit")
    seen = {item.entry.path: item for item in parse_observations(files)}
    assert seen["weights.bin"].entry.sha256 == seen["weights.bin"].listed.lfs == sha256(WEIGHTS)
    assert not list((running.home().directory / "data" / "blobs" / "partial" / "imports").glob("*"))


def test_importing_again_fetches_nothing_and_logs_nothing(running: Importers, hub: HubLike) -> None:
    furnish(hub, "org/again", licence="Ask first, v2")
    first = running.mirror(hub, source="hf:org/again")
    assert first.observed.conditions.licence == "Ask first, v2", "any licence that the card claims is kept"
    hub.asked.clear()
    again = running.mirror(hub, source="hf:org/again")
    assert (again.before, again.logged.index) == (True, first.logged.index)
    assert not [asked for asked in hub.asked if "/resolve/" in asked.path]


def test_members_corroborate_one_another_and_all_mirror_the_artifact(
    running: Importers, hub: HubLike, tmp_path: Path
) -> None:
    commit = furnish(hub, "org/shared")
    name = f"hf:org/shared@{commit}"
    artifacts = {running.mirror(hub, number, "hf:org/shared").artifact for number in (0, 1)}
    assert len(artifacts) == 1
    (hit,) = eventually(
        lambda: running.client.search("org/shared"), lambda hits: [each.proven for each in hits] == [True]
    )
    assert (hit.name, hit.artifact, hit.licence, hit.proven) == (name, *artifacts, "mit", True)
    assert hit.label.startswith("mirrored by node-")
    info = eventually(lambda: running.client.show("hf:org/shared"), lambda found: found.mirroring.corroborated == 2)
    assert info.title == name
    assert info.publication is None
    eventually(lambda: running.client.whereis(name), lambda found: [copy.complete for copy in found] == [True] * 3)
    pulled = eventually(lambda: running.client.pull(name, hub_cache=tmp_path / "hub"))
    assert pulled.folder == tmp_path / "hub" / "models--org--shared" / "snapshots" / commit
    assert (pulled.folder / "weights.bin").read_bytes() == WEIGHTS
    assert (tmp_path / "hub" / "models--org--shared" / "refs" / "main").read_text() == commit
    verdict = running.client.verify(name, hub_cache=tmp_path / "hub")
    assert verdict.accepted
    assert any("corroborated 2" in fact.text for fact in verdict.row("artifact").facts)
    assert verdict.row("signatures").state == "unknown"


def test_a_folder_of_mirrored_files_lacks_the_evidence_of_a_publication(
    running: Importers, hub: HubLike, tmp_path: Path
) -> None:
    commit = furnish(hub, "org/plain")
    running.mirror(hub, source="hf:org/plain")
    pulled = eventually(lambda: running.client.pull(f"hf:org/plain@{commit}", to=tmp_path / "plain"))
    assert running.client.verify(pulled.folder).exit_status == 5


def test_different_bytes_under_one_commit_raise_an_alarm_and_the_first_ones_stay(
    running: Importers, hub: HubLike, tmp_path: Path
) -> None:
    commit = furnish(hub, "org/disputed")
    name = f"hf:org/disputed@{commit}"
    true = running.mirror(hub, 0, "hf:org/disputed").artifact
    eventually(lambda: known_to(running, "hf:org/disputed", 2), lambda known: true in known)  # not of the other one yet
    with hub_like() as liar:
        furnish(liar, "org/disputed", OTHER)
        object.__setattr__(liar.repositories["org/disputed"].commits[0], "sha", commit)
        false = running.mirror(liar, 1, "hf:org/disputed").artifact
    assert true != false
    eventually(lambda: running.client.show(name), lambda found: len(found.mirroring.rivals) == 1)
    assert running.client.resolve(name).artifact == true, "two of three members saw it first"
    for artifact in (true, false):
        info: ArtifactInfo = eventually(
            lambda named=artifact: running.client.show(f"sha256:{named}"),  # type: ignore[misc]  # mypy infers no default
            lambda found: len(found.mirroring.rivals) == 1,
        )
        assert [seen.observed.artifact for seen in info.mirroring.rivals] == [({true, false} - {artifact}).pop()]
    warned = eventually(
        lambda: warnings_of(running), lambda warnings: any("org/disputed" in warning for warning in warnings)
    )
    assert any("different bytes" in warning for warning in warned)
    running.client.bind(name, false)
    assert running.client.resolve(name).artifact == false
    running.client.unbind(name)


def known_to(running: Importers, name: str, number: int) -> set[Digest]:
    """The artifacts that a node knows by this name."""

    async def ask() -> set[Digest]:
        async with running.home(number).client() as client:
            try:
                return {parse_entry(located.line).statement.subject for located in await client.resolve(name)}
            except NotFound:
                return set()

    return asyncio.run(ask())


def warnings_of(running: Importers) -> tuple[str, ...]:
    async def ask() -> tuple[str, ...]:
        async with running.home().operator() as client:
            return (await client.status()).warnings

    return asyncio.run(ask())


def test_a_change_of_an_upstream_is_reported_once(running: Importers, hub: HubLike) -> None:
    commit = furnish(hub, "org/moving")
    name = f"hf:org/moving@{commit}"
    running.mirror(hub, source="hf:org/moving")
    assert running.check(name).state == "same"
    later = hub.repositories["org/moving"].commit(OTHER).sha
    changed = running.check(name)
    assert (changed.state, changed.successor) == ("changed", later)
    assert running.check(name).index == changed.index
    del hub.repositories["org/moving"].commits[0]
    assert running.check(name).lost == "commit"
    hub.repositories["org/moving"].disabled = True
    assert running.check(name).lost == "access"
    del hub.repositories["org/moving"]
    gone = running.check(name)
    assert (gone.state, gone.lost) == ("gone", "repository")
    wanted = {"upstream-changed", "upstream-gone"}
    eventually(
        lambda: {entry.statement.predicate for entry, _, _ in running.client.show(name).mirroring.changes},
        lambda found: found == wanted,
    )


def test_a_node_observes_only_what_it_fetched(running: Importers, hub: HubLike) -> None:
    with pytest.raises(NotFound) as unknown:
        running.check(f"hf:org/unknown@{'3' * 40}")
    assert unknown.value.code == "NOT-OBSERVED"


def test_terms_that_were_accepted_are_kept_and_the_token_is_not(running: Importers, hub: HubLike) -> None:
    token = f"hf_{'c' * 37}"
    furnish(hub, "org/gated")
    hub.repositories["org/gated"].gated, hub.repositories["org/gated"].tokens = "manual", {token}
    with pytest.raises(Refused) as refused:
        running.mirror(hub, source="hf:org/gated")
    assert refused.value.code == "UPSTREAM-GATED"
    said = running.mirror(hub, source="hf:org/gated", terms=b"I will be good.\n", token=token).observed
    assert said.conditions.gated == "manual"
    assert objects(running, said.conditions.terms.digest) == [b"I will be good.\n"]  # type: ignore[union-attr]  # the terms are there
    home = running.home().directory
    kept = subprocess.run(["grep", "-rlF", token, str(home)], capture_output=True, text=True, check=False)
    assert kept.stdout == ""


def test_a_hub_with_false_data_is_named_to_the_operator_and_nothing_is_logged(running: Importers, hub: HubLike) -> None:
    furnish(hub, "org/lying")
    hub.interfere = lambda asked: Answer(200, b"x" * len(WEIGHTS)) if asked.cdn else None
    with pytest.raises(Untrusted) as lie:
        running.mirror(hub, source="hf:org/lying")
    assert lie.value.code == "UPSTREAM-LIED"
    assert "weights.bin" in lie.value.what
    with pytest.raises(ComityError):
        running.client.resolve("hf:org/lying")


def test_only_operators_import(running: Importers, hub: HubLike) -> None:
    furnish(hub, "org/tiny")
    with pytest.raises(Refused):
        running.client.import_upstream(f"hf:{NAME}", running.home().name, endpoint=hub.url)

    async def as_anybody() -> None:
        async with running.home().client() as client:
            async for _ in client.upstream.run(ImportOrder(f"hf:{NAME}", hub.url)):
                pass

    with pytest.raises(ComityError):
        asyncio.run(as_anybody())
    assert not hub.asked


SNAPSHOT = """
import sys, huggingface_hub
print(huggingface_hub.snapshot_download(sys.argv[1], cache_dir=sys.argv[2], local_dir=sys.argv[3] or None))
"""


def stock_download(hub: HubLike, name: str, cache: Path, local: Path | None = None) -> Path:
    """As the unmodified client of this environment fills its cache, or a folder."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env = {**ours, "HF_ENDPOINT": hub.url, "HF_HOME": str(cache.parent / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", SNAPSHOT, name, str(cache), str(local or "")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return Path(ran.stdout.strip().splitlines()[-1])


def test_a_stock_clients_cache_is_imported_with_its_commit_and_hashes(
    running: Importers, hub: HubLike, tmp_path: Path
) -> None:
    commit = furnish(hub, "org/cached")
    snapshot = stock_download(hub, "org/cached", tmp_path / "cache")
    done = running.mirror(hub, source=snapshot.parent.parent, endpoint="")
    said = done.observed
    assert (said.upstream.name, said.upstream.requested) == (f"hf:org/cached@{commit}", "main")
    assert (said.obtained.how, said.upstream.endpoint) == ("cache", "")
    assert said.matched.compared == said.matched.files == len(FILES) + 1
    assert "upstream" in said.unchecked
    fetched = running.mirror(hub, 1, "hf:org/cached")
    assert fetched.artifact == done.artifact
    assert (snapshot / "weights.bin").resolve().stat().st_mode & 0o200  # the cache stays its owner's
    with pytest.raises(Conflict):
        running.mirror(hub, source=snapshot, endpoint="", claimed="hf:org/other")


@pytest.mark.slow
def test_a_damaged_cache_is_not_imported(running: Importers, hub: HubLike, tmp_path: Path) -> None:
    furnish(hub, "org/damaged")
    snapshot = stock_download(hub, "org/damaged", tmp_path / "cache")
    blob = (snapshot / "weights.bin").resolve()
    blob.chmod(0o644)
    blob.write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(Untrusted) as damaged:
        running.mirror(hub, source=snapshot, endpoint="")
    assert damaged.value.code == "UPSTREAM-LIED"


@pytest.mark.slow
def test_a_link_out_of_a_cache_is_not_followed(running: Importers, hub: HubLike, tmp_path: Path) -> None:
    furnish(hub, "org/linked")
    snapshot = stock_download(hub, "org/linked", tmp_path / "cache")
    (snapshot / "secret.txt").symlink_to("/etc/hostname")
    with pytest.raises(Malformed) as linked:
        running.mirror(hub, source=snapshot, endpoint="")
    assert linked.value.code == "NOT-A-FILE"


@pytest.mark.slow
def test_a_folder_of_a_stock_client_is_recognised_by_its_metadata_files(
    running: Importers, hub: HubLike, tmp_path: Path
) -> None:
    commit = furnish(hub, "org/local")
    folder = stock_download(hub, "org/local", tmp_path / "cache", tmp_path / "folder")
    with pytest.raises(Malformed) as nameless:
        running.mirror(hub, source=folder, endpoint="")
    assert nameless.value.code == "WHICH-UPSTREAM"
    said = running.mirror(hub, source=folder, endpoint="", claimed="hf:org/local").observed
    assert (said.upstream.commit, said.obtained.how) == (commit, "cache")
    assert said.matched.compared == said.matched.files


def test_a_carried_folder_has_only_the_origin_that_its_operator_states(
    running: Importers, hub: HubLike, tmp_path: Path
) -> None:
    (tmp_path / "carried").mkdir()
    (tmp_path / "carried" / "weights.bin").write_bytes(WEIGHTS)
    said = running.mirror(hub, source=tmp_path / "carried", endpoint="", claimed=f"hf:org/carried@{'4' * 40}").observed
    assert (said.obtained.how, said.matched.compared, said.matched.files) == ("carried", 0, 1)
    with pytest.raises(Malformed):
        running.mirror(hub, source=tmp_path / "carried", endpoint="", claimed="hf:org/carried@main")
    info = eventually(lambda: running.client.show(f"hf:org/carried@{'4' * 40}"))
    assert info.mirroring.corroborated == 0
    assert "no node fetched it" in info.basis


def test_a_model_sig_is_mirrored_and_judged_by_the_reader(running: Importers, hub: HubLike, tmp_path: Path) -> None:
    (tmp_path / "signed").mkdir()
    (tmp_path / "signed" / "weights.bin").write_bytes(WEIGHTS)
    key = PrivateKey.generate("ecdsa-p256")
    sign_folder(ingest(tmp_path / "signed", workers=1, on_progress=lambda _: None), tmp_path / "signed", "tiny", key)
    name = f"hf:org/signed@{'6' * 40}"
    said = running.mirror(hub, source=tmp_path / "signed", endpoint="", claimed=name).observed
    assert said.matched.files == 2
    rule = ModelSigningRule(keys=(ModelKey.of_raw(key.public),), require=True)
    policy = replace(running.client.policy(), model_signing=rule, require=("artifact", "bytes", "signatures"))
    pulled = eventually(lambda: running.client.pull(name, to=tmp_path / "pulled", policy=policy))
    row = pulled.verdict.row("signatures")
    assert (row.state, "model.sig by key" in row.summary) == ("pass", True)
    stranger = ModelSigningRule(keys=(ModelKey.of_raw(PrivateKey.generate("ecdsa-p256").public),), require=True)
    assert not running.client.verify(pulled.folder, policy=replace(policy, model_signing=stranger)).accepted


def test_a_list_at_a_web_server_is_mirrored_found_pulled_and_checked_again(running: Importers, tmp_path: Path) -> None:
    folder = tmp_path / "site" / "listed"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS)
    (folder / "SHA256SUMS").write_text(f"{sha256(WEIGHTS)}  weights.bin\n")
    with file_server(tmp_path / "site") as site:

        def mirror(number: int) -> Imported:
            socket = str(running.home(number).socket)
            return running.client.import_upstream("https:127.0.0.1/listed", socket, endpoint=site.url)

        said, _ = mirror(0).observed, mirror(1)
        assert (said.upstream.endpoint, said.unchecked) == (site.url, ("author", "tls"))
        assert (said.matched.sha256, said.matched.files) == (1, 1)
        name = said.upstream.name
        info = eventually(lambda: running.client.show(name), lambda found: found.mirroring.corroborated == 2)
        assert info.title == name
        pulled = eventually(lambda: running.client.pull(name, to=tmp_path / "pulled"))
        assert (pulled.folder / "weights.bin").read_bytes() == WEIGHTS
        assert running.check(name).state == "same"
        (folder / "SHA256SUMS").write_text(f"{'a' * 64}  weights.bin\n")
        assert running.check(name).state == "changed"


def test_a_git_repository_is_mirrored_found_pulled_and_checked_again(running: Importers, tmp_path: Path) -> None:
    with git_site(tmp_path) as site:
        commit = site.commit("tiny", {"config.json": b"{}\n", "weights.bin": Lfs(WEIGHTS)})
        socket = str(running.home().socket)
        said = running.client.import_upstream("git:127.0.0.1/tiny", socket, endpoint=site.url).observed
        assert (said.name, said.unchecked) == (f"git:127.0.0.1/tiny@{commit}", ("author", "tls"))
        assert (said.matched.sha256, said.matched.pointers, said.matched.git_blob) == (1, 1, 1)
        pulled = eventually(lambda: running.client.pull(said.name, to=tmp_path / "pulled"))
        assert (pulled.folder / "weights.bin").read_bytes() == WEIGHTS
        assert running.check(said.name).state == "same"
        site.commit("tiny", {"config.json": b"[]\n"})
        assert running.check(said.name).state == "changed"


def require_mirrored(running: Importers, name: str, endpoint: str, files: dict[str, bytes], token: str = "") -> None:
    """A node mirrors the files, and finds the upstream unchanged."""
    socket = str(running.home().socket)
    said = running.client.import_upstream(name, socket, endpoint=endpoint, token=token).observed
    assert (said.matched.sha256, said.unchecked) == (len(files), ("author", "tls"))
    with TemporaryDirectory() as folder:
        pulled = eventually(lambda: running.client.pull(said.name, to=Path(folder) / "pulled"))
        assert {path: (pulled.folder / path).read_bytes() for path in files} == files
    assert running.client.check_upstream(said.name, socket, token=token).state == "same"


SMALL = {"config.json": b"{}\n", "sub/weights.bin": WEIGHTS}


def test_an_image_of_a_registry_is_mirrored_by_a_node(running: Importers, tmp_path: Path) -> None:
    with image_registry(tmp_path) as registry:
        push(registry, "lab/tiny", "v1", SMALL)
        require_mirrored(running, "oci:127.0.0.1/tiny@v1", f"{registry}/lab", SMALL)


def test_a_prefix_of_a_bucket_is_mirrored_by_a_node(running: Importers, tmp_path: Path) -> None:
    with seaweed(tmp_path) as service:
        client = S3Account.open(service.endpoint, service.user, tmp_path, "pub").client()
        for path, data in SMALL.items():
            client.put_object(Bucket="pub", Key=f"tiny/{path}", Body=data, ChecksumAlgorithm="SHA256")
        token = f"{service.user.access_key}:{service.user.secret_key}"
        require_mirrored(running, "s3:127.0.0.1/tiny", f"{service.endpoint}/pub", SMALL, token)


def test_a_repository_of_modelscope_is_mirrored_by_a_node(running: Importers, tmp_path: Path) -> None:
    with model_scope_site(tmp_path / "site", SMALL) as server:
        require_mirrored(running, "ms:org/tiny", server.url, SMALL)


def test_a_queued_import_is_shown_logged_and_cancelled(running: Importers, hub: HubLike) -> None:
    commit = furnish(hub, "org/queued")
    options = ("--node", str(running.home().directory))
    allowed = (*options, "--endpoint", hub.url, "--allow-host", hub.cdn.removeprefix("http://"))

    def comity(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "COMITY_HOME": str(running.client.home.root)}
        return run_comity("import", *arguments, environ=environ, patience=120)

    assert comity("--queue", "hf:org/queued", *allowed).returncode == 0
    assert comity("--queue", "hf:org/gone", *allowed).returncode == 0
    socket = str(running.home().socket)
    states = eventually(
        lambda: {item.name: item.state for item in running.client.queued_imports(socket)},
        lambda found: set(found.values()) == {"logged", "refused"},
    )
    assert states == {"hf:org/queued@main": "logged", "hf:org/gone@main": "refused"}
    shown = comity("--queued", *options)
    assert "hf:org/queued@main" in shown.stdout
    assert "was not found" in shown.stderr
    logged, refused = json.loads(comity("--queued", *options, "--json").stdout)["imports"]
    assert (logged["pinned"], refused["failures"]) == (f"hf:org/queued@{commit}", 1)
    for name, status in (("hf:org/queued", 0), ("hf:org/gone", 0), ("hf:org/gone", 5)):
        assert comity("--cancel", name, *options).returncode == status
    assert "No import is queued." in comity("--queued", *options).stdout


@pytest.mark.slow
def test_the_command_prints_a_text_and_a_document(running: Importers, hub: HubLike, tmp_path: Path) -> None:
    commit = furnish(hub, "org/spoken")

    def comity(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "COMITY_HOME": str(running.client.home.root)}
        return run_comity(*arguments, environ=environ, patience=120)

    options = ("--dir", str(running.home().directory), "--endpoint", hub.url)
    allowed = (*options, "--allow-host", hub.cdn.removeprefix("http://"))
    refused = comity("import", "hf:org/spoken", *options, "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "UPSTREAM-REDIRECT"
    assert refused.returncode == 3
    spoken = comity("import", "hf:org/spoken", *allowed)
    assert spoken.returncode == 0, spoken.stderr
    assert f"hf:org/spoken@{commit}" in spoken.stdout
    assert "mirrored from" in spoken.stdout
    assert "not checked" in spoken.stdout
    assert "published" not in spoken.stdout
    said = json.loads(comity("import", "hf:org/spoken", *allowed, "--json").stdout)
    assert (said["schema"], said["before"]) == ("comity.dev/import/v1", True)
