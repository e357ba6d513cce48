"""Real registry clients with a node: skopeo and oras pull a model, list its tags and its referrers, and refuse bytes
that do not match the digest.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from comity.trust.statement import parse_entry
from comity.verifier import hash_file
from support.client_repository import CHILD, ServedRepository
from support.lying_proxy import Answer, lying_proxy
from support.tools import needs


def run(*command: str, works: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode == 0) is works, done.stdout + done.stderr
    return done.stdout if works else done.stderr + done.stdout


def image(url: str) -> str:
    return f"{urlsplit(url).netloc}/{CHILD}"


def digests(folder: Path) -> set[str]:
    return {hash_file(path, lambda _: None)[1] for path in folder.rglob("*") if path.is_file()}


def test_skopeo_inspects_lists_and_copies(node: ServedRepository, tmp_path: Path) -> None:
    skopeo, source = needs("skopeo", unlock="apt-get install skopeo"), f"docker://{image(node.url)}"
    files = set(node.repository.hashes.values())
    tags = run(skopeo, "list-tags", "--tls-verify=false", source)
    assert json.loads(tags)["Tags"] == ["latest", "v1"]
    raw = run(skopeo, "inspect", "--tls-verify=false", "--raw", f"{source}:v1")
    digest = hashlib.sha256(raw.encode()).hexdigest()
    assert json.loads(raw)["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    for number, reference in enumerate((":v1", f"@sha256:{digest}")):
        into = tmp_path / f"copy-{number}"
        run(skopeo, "copy", "--src-tls-verify=false", f"{source}{reference}", f"dir:{into}")
        assert (into / "manifest.json").read_text() == raw
        assert files <= digests(into)
    layout = tmp_path / "layout"
    run(skopeo, "copy", "--src-tls-verify=false", f"{source}:v1", f"oci:{layout}:v1")
    assert files <= digests(layout)


def test_oras_pulls_the_files_under_their_names_and_what_refers_to_them(node: ServedRepository, tmp_path: Path) -> None:
    oras, source, into = needs("oras", unlock="apt-get install oras"), image(node.url), tmp_path / "pulled"
    run(oras, "pull", "--plain-http", "--output", str(into), f"{source}:v1")
    files = node.repository.child.ingested.files
    assert {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()} == set(files)
    for path, original in files.items():
        assert (into / path).read_bytes() == original.read_bytes()
    found = run(oras, "discover", "--plain-http", "--format", "json", f"{source}:v1")
    kinds = {each["artifactType"]: each["digest"] for each in json.loads(found)["manifests"]}
    statement = tmp_path / "statement"
    run(oras, "pull", "--plain-http", "--output", str(statement), f"{source}@{kinds['application/vnd.in-toto+json']}")
    (line,) = statement.iterdir()
    subjects = parse_entry(line.read_bytes()).statement.subjects  # a node may say of several that it holds them
    assert node.repository.child.artifact in {subject.digest for subject in subjects}
    tags = run(oras, "repo", "tags", "--plain-http", source)
    assert tags.split() == ["latest", "v1"]


@pytest.mark.parametrize("client", ["skopeo", "oras"])
def test_a_blob_changed_in_transit_is_refused_by_its_digest(
    node: ServedRepository, tmp_path: Path, client: str
) -> None:
    program, into = needs(client, unlock=f"apt-get install {client}"), tmp_path / "into"
    changed: list[str] = []

    def flip(answer: Answer) -> Answer:
        if not answer.path.endswith(node.repository.hashes["config.json"]) or not answer.body:
            return answer
        changed.append(answer.path)
        return replace(answer, body=bytes([answer.body[0] ^ 1]) + answer.body[1:])

    with lying_proxy(node.url, flip) as address:
        source = f"{image(address)}:v1"
        # Two failures at once make oras 1.2 panic, which is a refusal without a reason.
        arguments = {
            "skopeo": ("copy", "--src-tls-verify=false", f"docker://{source}", f"dir:{into}"),
            "oras": ("pull", "--plain-http", "--concurrency", "1", "--output", str(into), source),
        }
        said = run(program, *arguments[client], works=False)
    assert changed, said
    assert "digest" in said.lower()
