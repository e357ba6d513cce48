"""all-MiniLM-L6-v2 from two unrelated packages, imported by two nodes: the same weights, and the differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import Digest
from comity.trust.statement import SideObject
from comity.verifier import hash_file
from support.hub_like import hub_like
from support.importing import importers
from support.weights import MINILM, OTHER_MINILM, packaged

WEIGHTS = Digest("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")

pytestmark = pytest.mark.slow


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if "__pycache__" not in name}


def test_two_nodes_import_the_same_weights_from_two_strangers_and_show_what_differs(tmp_path: Path) -> None:
    first, second = files(packaged(MINILM)), files(packaged(OTHER_MINILM))
    with hub_like() as hub, importers(tmp_path, 2) as running:
        hub.repository("one/minilm").commit(first)
        hub.repository("two/minilm").commit(second)
        one = running.mirror(hub, 0, "hf:one/minilm").observed
        two = running.mirror(hub, 1, "hf:two/minilm").observed
        shown = [running.client.show(f"sha256:{said.artifact}") for said in (one, two)]
        pulled = running.client.pull(one.upstream.name, to=tmp_path / "one")
    assert [info.manifest.by_path["model.safetensors"].sha256 for info in shown] == [WEIGHTS, WEIGHTS]
    assert hash_file(pulled.folder / "model.safetensors", lambda _: None)[1] == WEIGHTS
    assert one.artifact != two.artifact
    for said, given in ((one, first), (two, second)):
        assert said.matched.compared == said.matched.files == len(given)
        assert said.matched.pointers == said.matched.sha256 >= 1
    conditions = [info.mirroring.seen[0].observed.conditions for info in shown]
    assert conditions[0].card == SideObject.of(first["README.md"])
    assert [said.licence for said in conditions] == [
        "apache-2.0",
        "",
    ]  # the second package has neither card nor licence
    assert (conditions[1].card, conditions[1].licence_text) == (None, None)
    assert all(info.mirroring.rivals == () for info in shown)  # two repositories are no contradiction
