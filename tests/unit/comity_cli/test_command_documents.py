"""The JSON documents of commands have exactly the members that docs/schemas/commands describes."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comity_cli
import pytest
from click.testing import CliRunner
from comity.trust.encoding import sha256
from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog
from comity.wire.node import ReplicaCounts
from comity.wire.node_status import (
    DraftStatus,
    DutyStatus,
    ForkStatus,
    GovernanceStatus,
    LackingArtifact,
    LogStatus,
    MemberCopies,
    MemberStatus,
    NodeStatus,
    PeerStatus,
    Quota,
    ReplicationStatus,
    ServedStatus,
    ShortArtifact,
    StoreStatus,
)
from comity_cli import node_view
from comity_cli.commands import audit, drill, invite, kit_run, lab, load, member, mirror, offer, pact
from comity_cli.document import KINDS, members, schema_name
from comity_cli.lab.outages import Attempt
from comity_cli.main import COMMANDS, command
from comity_cli.offers import provider
from comity_cli.offers.rendering import RequestItem
from comity_cli.output import Output
from comity_client.client import Client
from comity_client.home import Home
from support.command_documents import DESCRIBED, faults, schema
from support.documents import broken
from support.fakes import FakeFederation, release
from support.federation import make_home
from support.fenced import ROOT
from support.weights import as_tensor

FILES = {"README.md": b"# Tiny\n", "model.safetensors": as_tensor(bytes(range(256)) * 64)}
DIGEST = sha256(b"example")
PRINTED_BY = {
    "adopted": "tests/unit/comity_cli/commands/test_verify.py",
    "approval": "tests/unit/comity_cli/commands/test_approve.py",
    "approvals": "tests/unit/comity_cli/commands/test_approvals.py",
    "approvals-added": "tests/unit/comity_cli/commands/test_approvals.py",
    "artifact-pins": "tests/unit/comity_cli/commands/test_pin.py",
    "asks": "tests/unit/comity_cli/commands/test_stated_times.py",
    "attestation-added": "tests/unit/addons/attestations/test_attestation_files.py",
    "attestation-export": "tests/unit/addons/attestations/test_attestation_files.py",
    "attestation-key": "tests/unit/addons/attestations/test_attestation_command.py",
    "attestation-keys": "tests/unit/addons/attestations/test_attestation_command.py",
    "attestations": "tests/unit/addons/attestations/test_attestation_command.py",
    "audit-log": "tests/unit/comity_cli/commands/test_audit_log_command.py",
    "audit-log-check": "tests/unit/comity_cli/commands/test_audit_log_command.py",
    "audit-results": "tests/unit/comity_client/test_copies_commands.py",
    "audits": "tests/unit/comity_client/test_copies_commands.py",
    "backup": "tests/unit/node/maintenance/test_backup.py",
    "binding": "tests/unit/comity_cli/commands/test_trust.py",
    "catalogue": "tests/unit/addons/mldcat/commands/test_catalogue_command.py",
    "ceremony": "tests/unit/comity_cli/charter/test_signing.py",
    "charter": "tests/unit/comity_cli/commands/test_found.py",
    "checked-drill-report": "tests/unit/comity_cli/commands/test_continuity_report.py",
    "continuity-check": "tests/integration/test_client_continuity.py",
    "continuity-drill": "tests/unit/comity_cli/commands/test_continuity_drill.py",
    "continuity-plan": "tests/integration/test_client_continuity.py",
    "continuity-plan-begun": "tests/integration/test_client_continuity.py",
    "continuity-plan-signed": "tests/integration/test_client_continuity.py",
    "copies": "tests/unit/comity_client/test_copies_commands.py",
    "costs": "tests/unit/node/maintenance/test_membership_costs.py",
    "decision": "tests/unit/comity_cli/commands/test_proposal.py",
    "delivered": "tests/unit/comity_cli/commands/test_proposal.py",
    "derivation": "tests/integration/test_client_derivations.py",
    "descent": "tests/unit/comity_client/test_descent.py",
    "drill-report-shown": "tests/unit/comity_cli/commands/test_continuity_report.py",
    "epochs": "tests/unit/comity_cli/commands/test_proposal.py",
    "export": "tests/unit/comity_cli/commands/test_export_command.py",
    "founding": "tests/unit/comity_cli/commands/test_found.py",
    "gc": "tests/unit/node/copies/test_retention_plan.py",
    "grant": "tests/unit/comity_cli/commands/test_grant.py",
    "grants": "tests/unit/comity_cli/commands/test_grant.py",
    "hardware-pins": "tests/unit/addons/hardware/test_hardware_pins.py",
    "hardware-revocation": "tests/unit/addons/hardware/test_hardware_pins.py",
    "hardware-revocations": "tests/unit/addons/hardware/test_hardware_pins.py",
    "hardware-root": "tests/unit/addons/hardware/test_hardware_pins.py",
    "held": "tests/unit/comity_cli/commands/test_trust.py",
    "hold-decision": "tests/unit/comity_client/test_copies_commands.py",
    "impact": "tests/unit/comity_client/test_copies_commands.py",
    "import": "tests/unit/project/test_documents.py",
    "import-queue": "tests/unit/comity_cli/commands/test_import.py",
    "inventory-differences": "tests/unit/comity_cli/commands/test_inventory.py",
    "join": "tests/integration/test_governance_commands.py",
    "keys": "tests/unit/comity_cli/commands/test_keys.py",
    "kit": "tests/unit/comity_cli/commands/test_kit_build.py",
    "kit-check": "tests/unit/comity_cli/commands/test_kit_run.py",
    "kit-evaluation": "tests/unit/comity_cli/commands/test_kit_run.py",
    "kit-recipe": "tests/unit/comity_cli/commands/test_kit_build.py",
    "lineage": "tests/integration/test_client_lineage.py",
    "local-verdicts": "tests/unit/comity_cli/test_local_verdicts.py",
    "member": "tests/unit/comity_cli/commands/test_init.py",
    "members": "tests/integration/test_governance_commands.py",
    "mirror-cost": "tests/unit/comity_client/test_copy_costs.py",
    "node-check": "tests/unit/comity_cli/test_founding_commands.py",
    "offer-check": "tests/unit/comity_cli/commands/test_offer_texts.py",
    "offers": "tests/unit/comity_cli/commands/test_offer_texts.py",
    "peer-ping": "tests/integration/test_operator_status.py",
    "peers": "tests/integration/test_operator_status.py",
    "pin": "tests/integration/test_governance_commands.py",
    "proposal": "tests/integration/test_governance_commands.py",
    "proposals": "tests/integration/test_governance_commands.py",
    "publisher-concerns": "tests/unit/comity_client/test_publisher_concerns.py",
    "publisher-key": "tests/integration/test_client_image_signatures.py",
    "publisher-rotated": "tests/unit/comity_client/test_partly_logged.py",
    "publisher-shown": "tests/unit/comity_cli/commands/test_publisher.py",
    "pulls": "tests/unit/node/test_pull_counts.py",
    "receipt": "tests/unit/project/test_documents.py",
    "restored": "tests/unit/node/maintenance/test_backup.py",
    "signed": "tests/unit/comity_cli/charter/test_signing.py",
    "storage-estimate": "tests/unit/node/maintenance/test_storage_move.py",
    "storage-initializer": "tests/unit/comity_cli/commands/test_storage_initializer.py",
    "storage-migrate": "tests/unit/node/maintenance/test_storage_move.py",
    "takeover": "tests/unit/comity_cli/commands/test_takeover.py",
    "transparency-report": "tests/unit/comity_cli/commands/test_withdrawal_report.py",
    "unpin": "tests/unit/comity_cli/commands/test_trust.py",
    "upgrade-fetch": "tests/integration/test_client_releases.py",
    "upstream-check": "tests/unit/project/test_documents.py",
}
"""Documents that a command prints in another test of every run: `watch_documents` checks them, with --json or not."""
NOT_ALWAYS = {
    "audits": {"not_counted"},
    "backup": {"left_out"},
    "derivation": {"receipt"},
    "join": {"epoch", "pinned_epoch", "waiting_at", "drafts", "followed", "lacked"},
    "offers": {"attested"},
}
"""Members that a command prints only in some cases."""
WITHOUT_A_CLASS = {
    "balance", "bom", "checked-report", "demo", "diff", "entry.statement.predicate", "fit", "hand-over",
    "offer", "offer-attested", "offer-challenge", "offer-measured", "recovered", "report-shown", "scan",
    "sign-in", "support-bundle",
}  # fmt: skip
"""Documents that commands print as a dict, or whose kind a variable names. None is added here: a new document is a
class, from which its schema is derived."""
MAPS = ("by_node", "codes", "damaged", "set", "spoken")
"""Members that are maps: of node names, of error codes, of folders, of variables, of words."""


def shortened(document: dict[str, Any]) -> dict[str, Any]:
    """With two members in each map: that of the codes has hundreds, all of one form."""
    cut = {name: dict(list(document[name].items())[:2]) for name in MAPS if name in document}
    return {**document, **cut}


def node_status() -> Any:
    """A status in which every list has an item."""
    counts = ReplicaCounts(1, 1, 3, 2, 1)
    made = NodeStatus(
        "comity", "node.example/log", 1, (PeerStatus("node", "CH", "127.0.0.1:7443", True, 1, 0, ""),),
        (LogStatus("node.example/log", 3, True, 1, ("node.example/cosigner",)),), StoreStatus(1, 2, None, 0), 1, 0,
        (Quota("uploads", 1, 2),), ("a warning",), (ServedStatus("somebody", DIGEST, 5),),
        GovernanceStatus(
            DIGEST, 1, DIGEST, False, 1, (DraftStatus(DIGEST, "Institute", "why", 1, 0, 3, ("Institute",)),),
            (DutyStatus("Institute", "intent", DIGEST, 1, "", True),), (ForkStatus(1, DIGEST, DIGEST, False),),
            ("Institute",), 1, (MemberStatus("Institute", None, 1),), ("Institute",),
        ),
        ReplicationStatus(
            counts, 1, (LackingArtifact(DIGEST, "a/b@v1", "copying"),), (ShortArtifact(DIGEST, "", 1),),
            (MemberCopies(DIGEST, "Institute", 1, 2, 3),),
        ),
    )  # fmt: skip
    return node_view.NodeStatusDocument.of(made)


def printed(document: Any) -> Any:
    """What a command prints of a document."""
    return json.loads(json.dumps({"schema": schema_name(KINDS[type(document)]), **members(document)}))


def of_a_lab() -> Iterator[Any]:
    """Documents that are printed where nodes run as processes of their own, with an item in each list."""
    file, request = (
        Path("file"),
        RequestItem(DIGEST, DIGEST, "requested", True, DIGEST, "a", "b", DIGEST, "proven", "c"),
    )
    yield pact.PactsDocument((pact.PactItem(request, False),), 1)
    yield offer.OfferPostDocument(DIGEST, DIGEST, DIGEST, "comity offer request")
    yield offer.OfferWithdrawnDocument(DIGEST, DIGEST)
    yield provider.LoadedDocument("node-ch", (1,))
    yield invite.InvitationDocument(file, DIGEST, 1, {"federation": "babab"})
    yield audit.AuditChallengesDocument(file, 1)
    yield audit.AuditAnswersDocument(file, 1, 0)
    yield lab.LabDocument(file, (lab.LabNodeItem("node-ch", "CH", None, "127.0.0.1:1", ""),), file)
    yield mirror.MirrorRuleAddedDocument(file, 1)
    yield member.AskDocument(DIGEST, True)
    yield drill.LabDrillDocument((Attempt("node-ch", "a/b@v1", True, False, "why"),), 1)
    yield pact.PactDrillDocument(True, (pact.Step("the pact", True, "how"),))
    log, copy = LoadedLog("node.example/log+key", 1, 2, 2), LoadedArtifact(DIGEST, "a/b@v1", "why", "CODE")
    yield kit_run.KitRunDocument(file, "chat", DIGEST, "http://127.0.0.1:8080", True, "how", 1, 1)
    yield load.LoadDocument(True, 1, 2, {"disk-1": "why"}, LoadedCharter(1, 2), (log,), (copy,), 1)


def some_files(folder: Path) -> list[str]:
    """Files that make an item in each list of what `comity identify` prints."""
    folder.mkdir()
    first, *_ = FILES
    for path, data in ((first, FILES[first]), ("elsewhere", FILES[first]), ("mine", b"nobody knows it")):
        (folder / path).write_bytes(data)
    (folder / "gone").symlink_to("nothing")
    return [str(folder)]


@pytest.fixture(scope="module", name="examples")
def _examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A document of each kind, as a command prints it for a federation of four nodes."""
    folder, found = tmp_path_factory.mktemp("examples"), {}
    made = release(folder / "source", FILES, by=(federation := FakeFederation()).publisher)
    environ = {"COMITY_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    runner = CliRunner(env=environ)

    def run(*words: str) -> None:
        ran = runner.invoke(command, [*words, "--json"], obj=Output())
        assert ran.stdout, (words, ran.exception)
        document = json.loads(ran.stdout)
        found[document["schema"].split("/")[1]] = document

    node = make_home(folder / "node", 0).directory
    run("mirror", "rules", "add", "all of it", "--do", "copy", "--quota-bytes", "5", "--node", str(node))
    run("mirror", "rules", "ls", "--node", str(node))
    run("upgrade", "check", "--no-peers", "--node", str(node))
    run("doctor", "--node", str(node))
    run("env", "--node", "https://models.example.org")
    with federation.running() as running:
        running.publish(made)
        running.nodes[0].replicas = ReplicaCounts(1, 0, 1, 1, 0)
        Client(Home(folder / "home")).pin(running.file())
        run("show", "swiss-ai/tiny")
        run("whereis", "swiss-ai/tiny")
        run("search", "tiny")
        run("status")
        run("pull", "swiss-ai/tiny", "--dry-run")
        run("pull", "swiss-ai/tiny")
        run("identify", *some_files(folder / "disk"))
        run("index", "fetch")
        run("index", "show")
        run("index", "export", str(folder / "index.bin"))
        origin = running.nodes[0].node.origin
        run("log", "checkpoint", origin)
        run("log", "entries", origin)
        run("log", "check", origin)
        run("log", "proof", made.entry.digest)
        run("log", "misbehaviour", "--all")
        run("advisory", "ls", "swiss-ai/tiny")
        run("mirror", "rules", "check", "swiss-ai/tiny", "--node", str(node))
        run("publisher", "new", "Lab", "--jurisdiction", "CH", "--home", "")
    run("trust", "show")
    run("publisher", "ls")
    incoming = folder / "cache" / "models--swiss-ai--tiny" / ".comity" / "incoming"
    (incoming / sha256(b"begun")).write_bytes(b"a part")
    run("cache", "ls")
    run("cache", "prune", "--dry-run")
    run("cache", "rm", "swiss-ai/tiny@v1", "--dry-run")
    run("version")
    run("explain")
    run("explain", "INCLUSION")
    run("policy", "new", "--out", str(folder / "strict.toml"))
    policy = (folder / "strict.toml").read_text()
    (folder / "strict.toml").write_text(policy.replace("[licences]\n", '[licences]\naccept = ["MIT"]\n'))
    run("policy", "check", str(folder / "strict.toml"))
    run("policy", "explain", str(folder / "strict.toml"))
    run("evaluation", "new", "--out", str(folder / "criteria.toml"))
    run("offer", "new", "--out", str(folder / "offer.toml"))
    run("token", "new", "ci", "--node", str(node))
    run("token", "ls", "--node", str(node))
    run("webhook", "new", "ops", "https://chat.example.org/hook", "--event", "alert", "--node", str(node))
    run("webhook", "ls", "--node", str(node))
    run("config", "show", "--node", str(node))
    (node / "node.toml").write_text((node / "node.toml").read_text() + "nonsense = 1\n")
    run("config", "check", "--node", str(node))
    for made_here in (node_status(), *of_a_lab()):
        found[KINDS[type(made_here)]] = printed(made_here)
    yield found


def test_the_examples_of_policies_and_settings_have_an_item_in_each_list(examples: dict[str, Any]) -> None:
    assert examples["policy-check"]["findings"] and examples["policy-check"]["pins"]
    assert examples["config-check"]["problems"] and examples["tokens"]["tokens"] and examples["webhooks"]["webhooks"]


@pytest.mark.parametrize("kind", sorted(DESCRIBED - PRINTED_BY.keys()))
def test_a_commands_document_fits_its_schema_and_with_one_member_changed_does_not(
    examples: dict[str, Any], kind: str
) -> None:
    assert faults(kind, examples[kind]) == []
    document = shortened(examples[kind])
    for place, copy in broken(document):
        change, _, member = place.partition(" ")
        where = member.split("/")
        map_changed = where[0] in MAPS and len(where) == (1 if change == "add" else 2) and change != "type"
        loose = map_changed or (change == "remove" and where[-1] in NOT_ALWAYS.get(kind, ()))
        if where[0] not in ("verdict", "schema") and change in ("remove", "add", "type") and not loose:
            assert faults(kind, copy), place


@pytest.mark.parametrize("kind", sorted(DESCRIBED))
def test_a_schema_requires_every_member_that_is_always_printed(kind: str) -> None:
    described = schema(kind)
    for form in described.get("oneOf", [described]):
        assert form["properties"]["schema"] == {"const": f"comity.dev/{kind}/v1"}
    optional = set[str]()

    def look(found: Any) -> None:
        if isinstance(found, dict):
            optional.update(set(found.get("properties", ())) - set(found.get("required", ())))
            for value in found.values():
                look(value)
        elif isinstance(found, list):
            for value in found:
                look(value)

    look(described)
    assert optional == NOT_ALWAYS.get(kind, set())


@pytest.mark.parametrize(("kind", "test"), PRINTED_BY.items())
def test_an_example_of_every_other_document_is_printed_by_a_test_of_every_run(kind: str, test: str) -> None:
    assert kind in DESCRIBED
    assert "pytestmark = pytest.mark.slow" not in (ROOT / test).read_text("utf-8")


def test_every_schema_is_derived_from_a_class_of_documents() -> None:
    for module in pkgutil.walk_packages(comity_cli.__path__, "comity_cli."):
        importlib.import_module(module.name)
    for name in COMMANDS.values():
        importlib.import_module(name.module, "comity_cli.commands")
    kinds = {kind for made, kind in KINDS.items() if made.__module__.startswith(("comity_cli.", "comity.addons."))}
    assert kinds == {*DESCRIBED, "error"}


def test_no_further_document_is_printed_without_a_class() -> None:
    folders = (ROOT / "clients" / "comity_cli", ROOT / "registry" / "comity" / "addons")
    files = [path for folder in folders for path in folder.rglob("*.py") if path.name != "output.py"]
    printed = re.findall(r"\.document\(\s*([^,]+),", "".join(path.read_text("utf-8") for path in files))
    assert {kind.strip('"') for kind in printed} == WITHOUT_A_CLASS
