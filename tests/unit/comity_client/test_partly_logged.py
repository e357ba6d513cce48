"""Every command that logs at the nodes that the user names exits with 8 if not all of them logged it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from click.testing import CliRunner
from comity.addons.derivation import derive as derivations
from comity.addons.derivation.check import ComparedTensor, Comparison
from comity.addons.derivation.commands import derive
from comity.trust.encoding import sha256
from comity_cli import main, signers
from comity_cli.output import Output
from comity_client.approving import ApprovalReceipt
from comity_client.publish import Logged, PublishReceipt
from comity_client.vouching import TEMPLATE, read_criteria

ARTIFACT: Final = sha256(b"artifact")
REFERENCE: Final = "lab/x@v1"
SUBJECT: Final = SimpleNamespace(artifact=ARTIFACT)
PUBLISHER: Final = SimpleNamespace(
    label="Lab", id=sha256(b"lab"), home="a.example/log", rotation_lines=(), folder=Path("x"), rotation=ARTIFACT
)
COMMANDS: Final = (
    ("advisory", "new", REFERENCE, "--kind", "yank", "--text", "wrong"),
    ("advisory", "lost-key", "--since", "8", "--text", "gone"),
    ("vouch", REFERENCE, "--statement", "evaluated"),
    ("evaluation", "announce", REFERENCE, "--criteria", "{criteria}", "--out", "{new}"),
    ("evaluation", "report", REFERENCE, "--criteria", "{made}", "--value", "refusal_rate=1"),
    ("derive", "check", REFERENCE, REFERENCE),
    ("approve", REFERENCE, "--scope", "site", "--until", "2027-01-01", "--yes"),
    ("approvals", "end", REFERENCE, "--scope", "site", "--yes"),
    ("publisher", "rotate", "Lab", "--yes"),
    ("publish", "{folder}", "--as", REFERENCE, "--licence", "MIT"),
)


class LoggingClient:
    """A client whose statements are logged at the first `count` of the nodes that the user names."""

    def __init__(self, count: int) -> None:
        self._count = count

    def approvals(self) -> LoggingClient:
        return self

    def subject(self, target: object, **_: object) -> object:
        return SUBJECT

    def publisher(self, label: object) -> object:
        return PUBLISHER

    def derive(self, *_: object, **__: object) -> object:
        side = SimpleNamespace(title="x", artifact=ARTIFACT)
        tensor = ComparedTensor("model.safetensors", "x", "x", 1, "copy")
        comparison = Comparison((tensor,), (), (), (), files=1, parent_files=1, tools={})
        return SimpleNamespace(child=side, parent=side, comparison=comparison, relation="same-weights")

    def change_keys(self, publisher: object, *, nodes: tuple[str, ...], **_: object) -> object:
        return PUBLISHER, self._logged(nodes)

    def approve(self, *_: object, nodes: tuple[str, ...], **__: object) -> ApprovalReceipt:
        return ApprovalReceipt("x", ARTIFACT, (), None, None, self._logged(nodes))

    end = approve

    def __getattr__(self, name: str) -> Callable[..., PublishReceipt]:
        if name not in ("advise", "report_lost_key", "vouch", "announce_evaluation", "log_derivation", "publish"):
            raise AttributeError(name)
        return lambda *_, nodes, **__: PublishReceipt(REFERENCE, ARTIFACT, self._logged(nodes))

    def _logged(self, nodes: tuple[str, ...]) -> tuple[Logged, ...]:
        return tuple(Logged(node, "log", 1, 2, ARTIFACT, ()) for node in nodes[: self._count])


def status(monkeypatch: pytest.MonkeyPatch, folder: Path, arguments: tuple[str, ...], count: int) -> int:
    module: Any = import_module(main.COMMANDS[arguments[0]].module, "comity_cli.commands")
    monkeypatch.setattr(module, "client", lambda: LoggingClient(count))
    for signs in (module, signers):
        monkeypatch.setattr(signs, "signing", lambda *_: PUBLISHER, raising=False)
    monkeypatch.setattr(derive, "_derive", lambda out, api, child, parent: api.derive())
    monkeypatch.setattr(derive, "_show", lambda *_: None)
    monkeypatch.setattr(derivations, "log_derivation", lambda api, _, **given: api.log_derivation(**given))
    criteria, made, new = folder / "criteria.toml", folder / "made.json", folder / f"new-{count}.json"
    criteria.write_text(TEMPLATE)
    made.write_bytes(read_criteria(TEMPLATE.encode()).encode())
    places = {"criteria": criteria, "made": made, "new": new, "folder": folder}
    given = [argument.format(**places) for argument in arguments]
    ran = CliRunner().invoke(
        main.command, [*given, "--node", "node-a", "--node", "node-b"], obj=Output(), standalone_mode=False
    )
    assert ran.exception is None, (ran.exception, ran.output)
    return int(ran.return_value or 0)


@pytest.mark.parametrize("arguments", COMMANDS, ids=[" ".join(arguments[:2]) for arguments in COMMANDS])
def test_a_node_of_two_that_logged_nothing_is_exit_status_8(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert status(monkeypatch, tmp_path, arguments, 2) == 0
    assert status(monkeypatch, tmp_path, arguments, 1) == 8
