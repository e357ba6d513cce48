"""Inventories for tests: one of a machine with something of each kind, and any that a property test draws."""

from __future__ import annotations

from comity.trust.encoding import Digest, sha256
from comity_client.inventory.inventory import (
    Inventory,
    InventoryArtifact,
    InventoryDifference,
    InventoryFile,
    InventoryFolder,
    InventoryNode,
    InventoryWarning,
    UnreadPath,
)
from hypothesis import strategies as st

NOW = 1_800_000_000
TINY = sha256(b"tiny")
YANKED = InventoryWarning("yank", "high", sha256(b"publisher"), True, "wrong tokenizer")


def a_file(path: str, data: bytes = b"", known: str = "unknown", **of: object) -> InventoryFile:
    return InventoryFile(path, sha256(data or path.encode()), 10, known, NOW, **of)  # type: ignore[arg-type]


def a_folder(path: str, artifact: Digest = TINY, state: str = "complete") -> InventoryFolder:
    return InventoryFolder(path, artifact, state, 2, 2, (), (), (), (), NOW)


def an_artifact(verdict: str = "accepted", *warnings: InventoryWarning, artifact: Digest = TINY) -> InventoryArtifact:
    why = "" if verdict == "accepted" else "the policy needs two cosigners"
    status = 0 if verdict == "accepted" else 4
    return InventoryArtifact(artifact, f"swiss-ai/{artifact[:4]}@v1", verdict, why, status, warnings)


def an_inventory() -> Inventory:
    folder = InventoryFolder(
        "/srv/tiny", TINY, "changed", 1, 3, ("b",), ("c",), ("d",), (sha256(b"alike"),), NOW, "swiss/tiny"
    )
    files = (
        a_file("/srv/tiny/a", known="artifact"),
        a_file("/srv/x", known="artifact", artifact=TINY, named="sub/a"),
        a_file("/srv/y"),
    )
    return Inventory(
        machine="ward-3",
        taken=NOW,
        paths=("/srv",),
        policy=sha256(b"policy"),
        artifacts=(an_artifact("refused", YANKED),),
        folders=(folder,),
        files=tuple(sorted(files, key=lambda each: each.path)),
        unread=(UnreadPath("/srv/z", "Permission denied"),),
        nodes=(InventoryNode("node-ch", False),),
        undelivered=(InventoryDifference("warned", "/srv/tiny", "swiss-ai/tiny@v1: yanked", TINY),),
    )


def inventories() -> st.SearchStrategy[Inventory]:
    """Inventories of few paths below `/a` and `/b`, so that two of them have many in common."""
    folders = ("/a/m", "/a/n", "/b")
    paths = [f"{folder}/{name}" for folder in (*folders, "/a") for name in "xyz"]
    artifacts = [sha256(name.encode()) for name in "AB"]
    known = st.sampled_from(["unknown", "unsure"])
    a_path, data = st.sampled_from(paths), st.sampled_from([b"1", b"2"])
    of = st.builds(
        lambda path, data, artifact: a_file(path, data, "artifact", artifact=artifact, named="w"),
        a_path, data, st.sampled_from(artifacts),
    )  # fmt: skip
    file = of | st.builds(a_file, a_path, data, known)
    folder = st.builds(a_folder, st.sampled_from(folders), st.sampled_from(artifacts))
    verdict = st.builds(
        lambda said, warned, artifact: an_artifact(said, *([YANKED] if warned else []), artifact=artifact),
        st.sampled_from(["accepted", "refused", "not judged"]), st.booleans(), st.sampled_from(artifacts),
    )  # fmt: skip
    unread = st.builds(UnreadPath, st.sampled_from(["/a", *folders, *paths]), st.just("Permission denied"))
    return st.builds(
        lambda files, folders, artifacts, unread, roots: Inventory(
            "m", NOW, tuple(roots), None, tuple(artifacts), tuple(folders), tuple(files), tuple(unread)
        ),
        st.lists(file, max_size=8, unique_by=lambda each: each.path),
        st.lists(folder, max_size=3, unique_by=lambda each: each.path),
        st.lists(verdict, max_size=2, unique_by=lambda each: each.artifact),
        st.lists(unread, max_size=2, unique_by=lambda each: each.path),
        st.sampled_from([("/a", "/b"), ("/a",), ("/",)]),
    )
