"""`comity trust`: pins and bindings of a user, made, shown, compared and removed without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comity.trust.encoding import syllables
from comity_cli.commands.trust import command
from support.case import case, nodes
from support.run_command import printed, refused, run, said
from support.world import found, identity

FEDERATION = case().federation
OWNER = identity("Swiss AI", "CH")


@pytest.fixture(name="file")
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A federation file; the user's home is empty."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    path = tmp_path / "federation.json"
    path.write_bytes(FEDERATION.encode())
    return path


def test_nothing_is_trusted_before_a_pin(file: Path) -> None:
    assert said(command, "show").startswith("No federation is pinned: nothing can be trusted yet.")
    assert printed(command, "show")["pins"] == []


def test_a_federation_is_pinned_with_consent(file: Path) -> None:
    assert run(command, "pin", file, answer="n\n").exit_code != 0
    assert printed(command, "show")["pins"] == []
    document = printed(command, "pin", file, "--yes")
    assert (document["federation"], document["epoch"], document["relation"]) == (FEDERATION.id, 0, "new")
    (pin,) = printed(command, "show")["pins"]
    assert (pin["federation"], pin["body"]) == (FEDERATION.id, FEDERATION.body.digest)
    shown = said(command, "show")
    assert syllables(FEDERATION.id) in shown and f"swiss-ai/… is bound by the charter to publisher {OWNER.id}" in shown
    assert "nothing changes" in said(command, "pin", file)  # the same: nobody is asked


def test_the_words_of_two_members_replace_the_question(file: Path) -> None:
    refused(command, "pin", file, "--words", "babab-babab")
    assert printed(command, "show")["pins"] == []
    assert "pinned charter of epoch 0" in said(command, "pin", file, "--words", syllables(FEDERATION.id))


def test_another_federation_is_pinned_beside_the_first(file: Path, tmp_path: Path) -> None:
    other = found(nodes(2), {})
    (tmp_path / "other.json").write_bytes(other.encode())
    said(command, "pin", file, "--yes")
    assert printed(command, "diff", tmp_path / "other.json")["relation"] == "new"
    said(command, "pin", tmp_path / "other.json", "--yes")
    assert {pin["federation"] for pin in printed(command, "show")["pins"]} == {FEDERATION.id, other.id}
    assert printed(command, "unpin", FEDERATION.id[:12])["federation"] == FEDERATION.id
    assert [pin["federation"] for pin in printed(command, "show")["pins"]] == [other.id]
    refused(command, "unpin", FEDERATION.id)


def test_a_diff_changes_nothing(file: Path) -> None:
    document = printed(command, "diff", file)
    assert (document["relation"], document["old"], document["new"]) == ("new", None, FEDERATION.body.digest)
    assert len(document["changes"]) > 0 and printed(command, "show")["pins"] == []
    assert f"comity trust pin {file}" in said(command, "diff", file)
    said(command, "pin", file, "--yes")
    assert printed(command, "diff", file)["changes"] == []
    assert "Nothing would change." in said(command, "diff", file)


@pytest.mark.parametrize("data", [b"", b"{}", json.dumps({"schema": "x"}).encode(), b"\xff" * 100])
def test_a_file_that_is_no_federation_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    for words in (("pin", file, "--yes"), ("diff", file)):
        refused(command, *words)
    assert printed(command, "show")["pins"] == []


def test_names_are_bound_and_unbound(file: Path) -> None:
    document = printed(command, "bind", "swiss-ai", OWNER.id)
    assert (document["name"], document["target"]) == ("swiss-ai", OWNER.id)
    said(command, "bind", "acme/tiny@v1", f"sha256:{'ab' * 32}")
    bindings = printed(command, "show")["bindings"]
    assert bindings["publishers"] == {"swiss-ai": OWNER.id} and bindings["artifacts"] == {"acme/tiny@v1": "ab" * 32}
    assert "swiss-ai is bound by you to" in said(command, "show")
    assert printed(command, "unbind", "swiss-ai")["target"] is None
    assert printed(command, "show")["bindings"]["publishers"] == {}
    refused(command, "unbind", "swiss-ai")


@pytest.mark.parametrize(("name", "target"), [("no name", "ab" * 32), ("swiss-ai", "xyz"), ("a/b/c@v", "ab" * 32)])
def test_a_name_or_target_that_is_none_is_refused(file: Path, name: str, target: str) -> None:
    refused(command, "bind", name, target)
    assert printed(command, "show")["bindings"]["publishers"] == {}


def test_a_publisher_is_held_to_newer_keys(file: Path) -> None:
    document = printed(command, "hold", OWNER.id, "77" * 32)
    assert (document["identity"], document["rotation"]) == (OWNER.id, "77" * 32)
    assert printed(command, "show")["bindings"]["rotations"] == {OWNER.id: "77" * 32}
    assert f"is pinned by you to rotation {'77' * 32}" in said(command, "show")
    refused(command, "hold", OWNER.id, "77")
