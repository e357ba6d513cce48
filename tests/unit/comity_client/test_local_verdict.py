"""A program asks before it loads: the answer is that of a verification, from what is kept, without a network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import PACK
from comity.trust.verify import verify
from comity.verifier import collect_evidence, load_policy
from comity_client import local_verdict
from comity_client.home import Home
from comity_client.local_verdict import LocalVerdict, check
from support.case import case

GOOD = case()


@pytest.fixture(name="model")
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pulled folder whose files were not changed lately, by the clock of the tests."""
    folder = GOOD.write(tmp_path)
    monkeypatch.setattr(local_verdict, "SETTLED_SECONDS", -3600.0)
    return folder


def asked(model: Path, path: Path | None = None) -> LocalVerdict:
    return check(path or model, model.parent / "policy.toml", home=Home(model.parent / "home"))


def test_the_answer_is_the_verdict_of_a_verification_and_is_remembered(model: Path) -> None:
    verdict = verify(collect_evidence(model), load_policy(model.parent / "policy.toml"))
    first, second = asked(model), asked(model)
    assert first.verdict == second.verdict == verdict.to_json()
    assert (first.accepted, first.exit_status, first.why, first.evidence) == (True, 0, "", model)
    assert (first.remembered, second.remembered) == (False, True)
    assert first.cosigned_at == second.cosigned_at
    assert first.cosigned_at is not None and first.age(first.cosigned_at + 60.0) == 60.0


def test_a_file_that_is_known_is_not_read_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in model.rglob("*"):
        os.utime(path, ns=(0, 0))
    monkeypatch.setattr("comity_client.identify.disk.SETTLED_SECONDS", -3600.0)
    first = asked(model)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a file was read"))
    (model / PACK / "proofs").touch()
    assert (asked(model).verdict, asked(model).accepted) == (first.verdict, True)


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "another byte": (lambda model: (model / "config.json").write_bytes(b"{}"), 3),
    "the same size and time": (lambda model: same_times(model / "LICENSE"), 3),
    "a file more": (lambda model: (model / "tokenizer" / "evil.py").write_bytes(b""), 3),
    "a file less": (lambda model: (model / "config.json").unlink(), 3),
    "a link instead": (lambda model: linked(model / "config.json"), 3),
    "no evidence": (lambda model: shutil.rmtree(model / PACK), 5),
    "less evidence": (lambda model: shutil.rmtree(model / PACK / "proofs"), 5),
    "another policy": (lambda model: stricter(model.parent / "policy.toml"), 4),
    "no federation": (lambda model: unpinned(model.parent / "policy.toml"), 4),
}


def same_times(path: Path) -> None:
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def stricter(policy: Path) -> None:
    accepted = 'accept = ["' + "ab" * 32 + '"]'
    policy.write_text(re.sub(r"(?m)^accept = .*$", accepted, policy.read_text(), count=1))


def unpinned(policy: Path) -> None:
    text = policy.read_text()
    start, end = text.index("[[pin]]"), text.index("\n[", text.index("[[pin]]") + 1)
    policy.write_text(text[:start] + text[end:])


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_verdict_depends_on_is_judged_again_once_it_changed(model: Path, what: str) -> None:
    assert not asked(model).remembered and asked(model).remembered
    change, status = CHANGES[what]
    change(model)
    answer = asked(model)
    assert (answer.remembered, answer.accepted, answer.exit_status) == (False, False, status)
    assert answer.why


def test_a_file_that_the_policy_names_is_read_again_once_it_changed(model: Path) -> None:
    assert asked(model).accepted
    (model.parent / "federation.json").write_bytes(b"{}")
    with pytest.raises(ComityError):
        asked(model)


def test_what_changed_just_now_is_not_remembered(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_verdict, "SETTLED_SECONDS", 3600.0)
    assert not asked(model).remembered and not asked(model).remembered


def test_a_file_of_an_artifact_is_partial_by_request(model: Path) -> None:
    one = asked(model, model / "model.safetensors")
    assert (one.exit_status, one.evidence) == (8, model)
    (model / "config.json").write_bytes(b"other")
    assert asked(model, model / "model.safetensors").exit_status == 8, "the other file was not asked about"
    assert asked(model, model / "config.json").exit_status == 3
    assert asked(model, model / "tokenizer").exit_status == 8


def test_without_evidence_nothing_is_read(tmp_path: Path, model: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    os.mkfifo(bare / "pipe")
    answer = asked(model, bare)
    assert (answer.exit_status, answer.evidence, answer.age(0.0)) == (5, None, None)
    assert "no manifest" in answer.why
    with pytest.raises(NotFound):
        asked(model, tmp_path / "gone")


def test_a_memory_that_cannot_be_read_is_passed_over(model: Path) -> None:
    assert asked(model).accepted
    (model.parent / "home" / "memory" / local_verdict.MEMORY).write_bytes(b"no database" * 1000)
    answer = asked(model)
    assert answer.accepted and not answer.remembered


def test_where_nothing_can_be_kept_every_file_is_read(model: Path) -> None:
    (model.parent / "home").write_bytes(b"no folder")
    assert asked(model).accepted
    again = asked(model)
    assert again.accepted and not again.remembered


def test_a_fresh_answer_reads_every_file(model: Path) -> None:
    policy, home = model.parent / "policy.toml", Home(model.parent / "home")
    assert asked(model).accepted
    assert not check(model, policy, fresh=True, home=home).remembered
