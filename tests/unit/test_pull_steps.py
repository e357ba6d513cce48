"""Single steps of a pull, while something else happens: another pull into the same folder, or an interruption."""

from __future__ import annotations

from pathlib import Path

from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.evidence import MODEL_SIG
from comity_client.pull.destinations import FolderDestination
from comity_client.pull.model_sig import fetched_model_sig

SIGNATURE = b"a signature"


def test_a_model_sig_that_another_pull_placed_first_is_read_where_it_is(tmp_path: Path) -> None:
    entry = FileEntry(MODEL_SIG, len(SIGNATURE), sha256(SIGNATURE))
    destination = FolderDestination(tmp_path / "model", Manifest.of([entry]))
    destination.prepare()
    (destination.incoming / entry.sha256).write_bytes(SIGNATURE)
    assert fetched_model_sig(destination, [entry], [entry]) == SIGNATURE
    (destination.incoming / entry.sha256).rename(destination.path_of(entry))
    assert fetched_model_sig(destination, [entry], [entry]) == SIGNATURE
