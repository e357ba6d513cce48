"""`comity upgrade fetch`, and vouches for what was built again: the public API and the commands, with fake nodes behind
the real wire.
"""

from __future__ import annotations

import json
from pathlib import Path

import comity
import pytest
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Untrusted
from comity.trust.policy import Policy
from comity_cli.commands import upgrade, vouch
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identity_signer import IdentitySigner
from comity_client.publishers import Publisher
from comity_client.release_parts import InstallingMachine
from comity_client.releases import UpgradeOrder, judge_release
from support.fakes import FakeFederation
from support.releases import COMMIT, make_release
from support.run_command import printed, refused, run, said
from support.world import seat

NAME = "comity/comity"
TWO = UpgradeOrder(NAME, 2)
MACHINE = InstallingMachine("x86_64", 11, ("glibc", 2, 36))


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(comity, "__version__", "0.1.0")
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def maintainers(client: Client) -> Publisher:
    return client.new_publisher("Comity maintainers", "CH", "node-ch.example/log")


@pytest.fixture
def built(tmp_path: Path, client: Client, maintainers: Publisher) -> Path:
    """The folder of the release 0.2.0, which is published."""
    return publish(client, maintainers, make_release(tmp_path, "0.2.0"))


@pytest.fixture
def policy_file(tmp_path: Path, client: Client, maintainers: Publisher) -> Path:
    (tmp_path / "federation.json").write_bytes(client.pins()[0].federation.encode())
    file = tmp_path / "release.toml"
    pins = 'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n'
    file.write_text(f'{pins}[publishers]\naccept = ["{maintainers.id}"]\n[safety]\nallow = ["wheels/*.whl"]\n')
    return file


@pytest.fixture
def policy(client: Client, policy_file: Path) -> Policy:
    return client.policy(policy_file)


def publish(client: Client, by: Publisher, folder: Path) -> Path:
    client.publish(folder, f"{NAME}@{folder.name}", publisher=by, licence="Apache-2.0")
    return folder


def member(code: str) -> IdentitySigner:
    """The member of this jurisdiction with its governance key."""
    owner = seat(code)
    origin = f"node-{code.lower()}.example/log"
    return IdentitySigner(
        owner.id, owner.inception.label, (owner.signer,), owner.inception.keys, (owner.entry.line,), origin
    )


def rebuild(client: Client, folder: Path, *codes: str) -> None:
    for code in codes:
        client.vouch_built(f"{NAME}@{folder.name}", folder, by=member(code))


def error_of(
    client: Client, policy: Policy, order: UpgradeOrder = TWO, machine: InstallingMachine = MACHINE
) -> ComityError:
    with pytest.raises(ComityError) as found:
        judge_release(client, order, policy, machine)
    return found.value


def test_a_release_that_two_members_rebuilt_is_fetched_and_nothing_is_installed(
    tmp_path: Path, client: Client, built: Path, policy_file: Path
) -> None:
    rebuild(client, built, "ES", "SG")
    out = tmp_path / "fetched"
    document = printed(upgrade.fetch, "--policy", policy_file, "--out", out)
    assert (document["version"], document["installed"]) == ("0.2.0", "0.1.0")
    assert sorted(document["rebuilt_by"]) == ["Institute ES", "Institute SG"]
    assert document["claimed_commit"] == COMMIT
    assert {"name": "needed-one", "installed": None, "version": "1.5"} in document["changes"]
    install = document["install"]
    assert install[1:5] == ["-m", "pip", "install", "--no-index"]
    assert install[5:] == [
        "--find-links", str(out / "wheels"), "--require-hashes", "-r", str(out / "requirements.lock"),
    ]  # fmt: skip
    assert (out / "wheels/comity-0.2.0-py3-none-any.whl").read_bytes() == next(
        built.glob("wheels/comity*")
    ).read_bytes()


def test_the_command_says_that_it_installs_nothing(
    tmp_path: Path, client: Client, built: Path, policy_file: Path
) -> None:
    rebuild(client, built, "ES")
    text = said(upgrade.fetch, "--policy", policy_file, "--out", tmp_path / "f", "--rebuilt-by", 1)
    assert "Nothing was installed" in text and "rebuilt by Institute ES" in text
    assert "--require-hashes" in text and f"commit {COMMIT}, as its publisher says" in text


def test_too_few_rebuilds_are_refused_before_a_wheel_is_fetched(
    tmp_path: Path, client: Client, federation: FakeFederation, maintainers: Publisher, built: Path, policy_file: Path
) -> None:
    rebuild(client, built, "ES")
    rebuild(client, built, "ES")  # a member counts once
    client.vouch_built(f"{NAME}@0.2.0", built, by=maintainers)  # the publisher does not
    stranger = client.new_publisher("Somebody", "KR", "node-kr.example/log")
    client.vouch_built(f"{NAME}@0.2.0", built, by=stranger)
    client.vouch(f"{NAME}@0.2.0", "evaluated", by=member("SG"))
    error = refused(upgrade.fetch, "--policy", policy_file, "--out", tmp_path / "f")
    assert (error.code, error.exit_status) == ("RELEASE-NOT-REBUILT", 4)
    assert "1 other members" in error.why and "Institute ES" in error.why
    assert sum(node.reads for node in federation.nodes) == 1, "the manifest alone"
    assert not (tmp_path / "f").exists()


def test_named_rebuilders_count_instead_of_members(client: Client, built: Path, policy: Policy) -> None:
    stranger = client.new_publisher("Auditors", "KR", "node-kr.example/log")
    client.vouch_built(f"{NAME}@0.2.0", built, by=stranger)
    rebuild(client, built, "ES", "SG")
    named = UpgradeOrder(NAME, 1, frozenset({stranger.id}))
    (found,) = judge_release(client, named, policy, MACHINE).rebuilt
    assert found.startswith("Auditors")
    assert error_of(client, policy, UpgradeOrder(NAME, 2, frozenset({stranger.id}))).code == "RELEASE-NOT-REBUILT"


def test_bytes_that_differ_are_not_vouched_for(tmp_path: Path, client: Client, built: Path) -> None:
    other = make_release(tmp_path / "again", "0.2.0")
    (other / "README.md").write_text("changed\n")
    (other / "more").write_text("more\n")
    with pytest.raises(Untrusted) as found:
        client.vouch_built(f"{NAME}@0.2.0", other, by=member("ES"))
    assert (found.value.code, found.value.why) == ("NOT-REBUILT", "README.md has other bytes, and 1 more differ")
    assert client.show(f"{NAME}@0.2.0").vouches == ()


def test_a_second_build_of_the_same_files_is_the_same_artifact(tmp_path: Path, client: Client, built: Path) -> None:
    rebuild(client, make_release(tmp_path / "again", "0.2.0"), "ES")
    assert [vouch.vouched.kind for vouch in client.show(f"{NAME}@0.2.0").vouches] == ["reproduced"]


def test_a_built_folder_goes_with_no_other_statement(tmp_path: Path) -> None:
    ran = run(vouch.command, NAME, "--statement", "rehashed", "--built", tmp_path)
    assert ran.exit_code == 2


@pytest.mark.parametrize("kind", ["yank", "vulnerability", "malware"])
def test_a_warning_of_its_publisher_refuses_a_release(
    client: Client, maintainers: Publisher, built: Path, policy: Policy, kind: str
) -> None:
    rebuild(client, built, "ES", "SG")
    client.advise(f"{NAME}@0.2.0", kind, "high", "do not use", publisher=maintainers)
    order = UpgradeOrder(f"{NAME}@0.2.0", 2)
    error = error_of(client, policy, order)
    assert (type(error), error.code) == (PolicyNotMet, "RELEASE-WARNED") and "do not use" in error.why


def test_a_warning_of_another_is_shown_and_refuses_only_if_the_policy_names_it(
    tmp_path: Path, client: Client, built: Path, policy_file: Path
) -> None:
    rebuild(client, built, "ES", "SG")
    stranger = client.new_publisher("Somebody", "KR", "node-kr.example/log")
    client.advise(f"{NAME}@0.2.0", "malware", "critical", "I say so", publisher=stranger)
    judged = judge_release(client, TWO, client.policy(policy_file), MACHINE)
    (warning,) = judged.warnings
    assert "I say so" in warning
    with policy_file.open("a") as file:
        file.write(f'[advisories]\nrefuse_from = ["{stranger.id}"]\n')
    assert error_of(client, client.policy(policy_file)).code == "RELEASE-WARNED"


def test_a_withdrawn_release_is_passed_over_and_named(
    client: Client, maintainers: Publisher, built: Path, policy: Policy, tmp_path: Path
) -> None:
    publish(client, maintainers, make_release(tmp_path, "0.0.9"))
    client.advise(f"{NAME}@0.2.0", "yank", "info", "broken", publisher=maintainers)
    error = error_of(client, policy)
    assert error.code == "RELEASE-OLDER" and "withdrew 0.2.0" in error.why


def test_an_older_release_is_taken_only_if_asked_for(
    tmp_path: Path, client: Client, maintainers: Publisher, policy: Policy
) -> None:
    old = publish(client, maintainers, make_release(tmp_path, "0.0.9"))
    rebuild(client, old, "ES", "SG")
    assert error_of(client, policy).code == "RELEASE-OLDER"
    assert judge_release(client, UpgradeOrder(NAME, 2, older=True), policy, MACHINE).version == "0.0.9"


def test_the_installed_release_needs_no_fetch(
    tmp_path: Path, client: Client, maintainers: Publisher, policy_file: Path, policy: Policy
) -> None:
    publish(client, maintainers, make_release(tmp_path, "0.1.0"))
    document = printed(upgrade.fetch, "--policy", policy_file)
    assert (document["version"], document["folder"], document["install"]) == ("0.1.0", None, [])
    assert "is the newest release, and is installed" in said(upgrade.fetch, "--policy", policy_file)
    assert error_of(client, policy, UpgradeOrder(f"{NAME}@0.1.0", 1)).code == "RELEASE-NOT-REBUILT"


def test_a_release_for_another_machine_is_refused_before_it_is_fetched(
    tmp_path: Path, client: Client, maintainers: Publisher, policy: Policy
) -> None:
    other = publish(client, maintainers, make_release(tmp_path, "0.2.0", "cp312-cp312-manylinux_2_28_x86_64"))
    rebuild(client, other, "ES", "SG")
    error = error_of(client, policy)
    assert (type(error), error.code) == (NotFound, "NO-WHEEL")
    assert error.why == "none of needed-one for Python 3.11 on x86_64, Linux with glibc 2.36"


def test_a_policy_that_names_no_publisher_fetches_no_program(client: Client, built: Path) -> None:
    assert error_of(client, client.policy()).code == "PUBLISHER-NOT-NAMED"


def test_a_name_of_another_publisher_is_refused(tmp_path: Path, client: Client, built: Path, policy_file: Path) -> None:
    rebuild(client, built, "ES", "SG")
    other = client.new_publisher("Others", "KR", "node-kr.example/log")
    client.bind("comity", other.id)
    publish(client, other, make_release(tmp_path / "other", "0.3.0"))
    error = refused(upgrade.fetch, f"{NAME}@0.3.0", "--policy", policy_file, "--rebuilt-by", 0, "--out", tmp_path / "f")
    assert isinstance(error, ComityError) and not (tmp_path / "f").exists()


def test_another_artifact_is_no_release(tmp_path: Path, client: Client, maintainers: Publisher, policy: Policy) -> None:
    folder = tmp_path / "0.2.0"
    folder.mkdir()
    (folder / "README.md").write_text("# A model\n")
    publish(client, maintainers, folder)
    rebuild(client, folder, "ES", "SG")
    error = error_of(client, policy)
    assert (type(error), error.code) == (Malformed, "NOT-A-RELEASE")


def test_a_release_whose_lock_is_of_other_files_is_refused(
    tmp_path: Path, client: Client, maintainers: Publisher, policy_file: Path
) -> None:
    folder = make_release(tmp_path, "0.2.0")
    lock = folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("needed-one==1.5", "needed-one==1.4"))
    publish(client, maintainers, folder)
    error = refused(upgrade.fetch, "--policy", policy_file, "--rebuilt-by", 0, "--out", tmp_path / "f")
    assert (error.code, error.why) == ("NOT-A-RELEASE", "its lock does not pin wheels/needed_one-1.5-py3-none-any.whl")
    assert json.loads((folder / "release.json").read_bytes())["version"] == "0.2.0"
