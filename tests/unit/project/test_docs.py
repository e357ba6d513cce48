"""The documentation agrees with the program: command lines, formats, links, generated parts."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from itertools import chain
from pathlib import Path

import click
import pytest
from comity.ledger.schema import metadata
from comity.node.config import NodeConfig
from comity.rules.git_ids import commit_id
from comity.rules.retention import parse_retention_rules
from comity.trust.artifact import Manifest
from comity.trust.policy_file import parse_policy
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, verify_cosignature
from comity_cli.main import COMMANDS
from comity_cli.main import command as root
from packaging.requirements import Requirement
from support import command_lines, product
from support.case import case

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "proto").glob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

page_of = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@pytest.fixture(autouse=True)
def _files_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


@page_of
def test_every_command_line_shown_is_one_that_comity_takes(page: Path) -> None:
    for arguments in command_lines.shown(page.read_text("utf-8")):
        try:
            command_lines.parse(arguments)
        except click.UsageError as error:
            pytest.fail(f"comity {' '.join(arguments)}: {error.format_message()}")


@page_of
def test_every_command_mentioned_exists(page: Path) -> None:
    assert [
        words for words in command_lines.mentioned(page.read_text("utf-8")) if not command_lines.exists(words)
    ] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_help_page_are_ones_that_comity_takes(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    subcommands = list(command.commands.values()) if isinstance(command, click.Group) else []
    for one in (command, *subcommands):
        examples = getattr(one, "examples", ())
        assert examples, f"{one.name} has no example"
        block = "```\n" + "\n".join(examples) + "\n```\n"
        for arguments in command_lines.shown(block):
            command_lines.parse(arguments)


@page_of
def test_every_link_has_a_target(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in _anchors(linked), target


def test_every_module_that_the_page_on_architecture_names_exists() -> None:
    """As `node.members`, or `trust.claims.read_claims` with what is in it: from a package of ours on."""
    texts = dict[str, str]()
    for name, path in product.modules().items():
        parts = name.split(".")
        texts |= {".".join(parts[start:]): path.read_text("utf-8") for start in range(len(parts))}
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:\.[A-Z]\w+)?`", page))
    files = {
        "model.sig",
        "copies.sqlite",
        "files.sqlite",
        "publishers.sqlite",
        "descent.sqlite",
        "webhooks.sqlite",
        "ledger.lock",
    }
    known = {name for name in named if name in texts or _is_in(texts.get(name.rpartition(".")[0], ""), name)}
    assert named - files - known == set()


def _is_in(text: str, name: str) -> bool:
    return re.search(rf"\b{name.rpartition('.')[2]}\b", text) is not None


def test_the_generated_parts_match_the_source() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.rendered().items():
        assert path.read_text("utf-8") == text, f"run docs/generate.py: {path.name} is out of date"


def test_the_manifest_in_the_protocol_has_the_digest_and_commit_id_beside_it() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    manifest = Manifest.parse(_block(text, "manifest").encode())
    assert f"`sha256:{manifest.digest}`" in text
    assert f"`{commit_id(manifest)}`" in text


def test_the_tests_that_the_page_on_security_names_exist() -> None:
    named = re.findall(r"`([\w/]+/test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "security.md").read_text("utf-8"))
    assert len(named) > 40
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"(?m)^(async )?def {test}\(", (ROOT / "tests" / file).read_text("utf-8"))
    ]
    assert missing == []


def test_the_note_in_the_protocol_is_cosigned() -> None:
    note = SignedNote.parse((_block((ROOT / "docs" / "protocol.md").read_text("utf-8"), "note") + "\n").encode())
    key = VerifierKey.parse("node-b.example/cosigner+5ac88342+BN690+8LzYowXsgP31NZaHGkrvfXuAx/c+YxiUytKPMU")
    assert verify_cosignature(note.signatures[0], key, Checkpoint.parse(note.text)) > 0


def test_the_policy_in_verifying_is_one_that_the_verifier_reads() -> None:
    federation = case().federation
    text = _block((ROOT / "docs" / "verifying.md").read_text("utf-8"), "policy")
    pinned = re.sub('(?m)^body = ".*"$', f'body = "{federation.body.digest}"', text)
    policy = parse_policy(pinned.encode(), lambda _: federation.encode())
    assert policy.pins == (federation.body,)
    assert policy.cosigners.outside == ("publisher", "US")


def test_the_settings_shown_for_storage_and_the_audit_log_are_ones_that_a_node_reads(tmp_path: Path) -> None:
    file, shown = tmp_path / "node.toml", []
    pages = ("copies", "grow", "watch")
    texts = [_blocks((ROOT / "docs" / "operations" / f"{page}.md").read_text("utf-8"), "toml") for page in pages]
    for text in chain.from_iterable(texts):
        if "[[rule]]" in text:
            assert parse_retention_rules(text.encode()).rules
            continue
        needed = '[node]\nname = "n"\n[listen]\nmutual = "127.0.0.1:0"\nopen = "127.0.0.1:0"'
        file.write_text(f"{needed}\n{text}\n", "utf-8")
        shown.append(NodeConfig.load(file, {}))
    (postgres, on_s3, replicated), copies = (config.storage for config in shown[:3]), shown[3].audit_log
    assert copies.syslog == "/dev/log"
    assert postgres.password_file == tmp_path / "pgpass"
    assert all("sslmode=verify-full" in storage.database for storage in (postgres, replicated))
    assert on_s3.s3 is not None
    assert on_s3.s3.credentials_file == tmp_path / "s3.toml"


def test_every_requirement_has_its_line_in_the_list_of_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["node"],
        *project["optional-dependencies"]["postgres"],
        *project["optional-dependencies"]["s3"],
    ]
    rows = re.findall(r"^\| ([a-z0-9, -]+) \|", (ROOT / "docs" / "dependencies.md").read_text("utf-8"), re.MULTILINE)
    listed = {name for row in rows for name in row.split(", ")}
    assert {Requirement(text).name for text in wanted} - listed == set()


def _block(text: str, kind: str) -> str:
    (found,) = _blocks(text, kind)
    return found


def _blocks(text: str, kind: str) -> list[str]:
    return [str(found) for found in re.findall(rf"^```{kind}\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_table_of_the_ledger_has_a_written_bound() -> None:
    """Which party is charged for it, and what happens at the bound."""
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    section = page.partition("### Tables of the ledger")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(metadata.tables)
