"""What `comity identify` may have found: one of each kind, with hostile names."""

from __future__ import annotations

from pathlib import Path

from comity.trust.encoding import Digest, sha256
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import Identified
from comity_client.identify.judging import KnownArtifact, KnownDerivation
from comity_client.identify.lookup import NodeAnswer
from comity_client.identify.match import FileOf, FolderOf, MatchedFiles
from comity_client.identify.tensors import ComparedTensors, SameTensors, SameTensorsFound

GOOD, BAD = Digest("ab" * 32), Digest("cd" * 32)
HOSTILE = "a\n\x1b[2J\u202e<script>alert(1)</script>[x](http://evil.example){0}\udcff"
DERIVED = KnownDerivation(BAD, "org/bad@v1", "quantized", True, 7, 7, "lab [abcd]")
COMPARED = ComparedTensors(9, 90, 8, 80, ("x = a",), (), ("b\x1b<script>",), (), (), (), (), ("model.safetensors",))


def disk_file(path: str, problem: str = "") -> DiskFile:
    return DiskFile(Path(path), 5, None if problem else sha256(path.encode("utf-8", "replace")), problem)


def identified(*unknown: str) -> Identified:
    folders = (
        FolderOf(Path("/srv/m"), GOOD, 2, 2),
        FolderOf(Path("hub/x"), BAD, 1, 3, ("a b.bin",), ("config.json",), ("more",), stored_as="org/x@main"),
    )
    return Identified(
        matched=MatchedFiles(
            folders,
            (FileOf(disk_file("blobs/1"), BAD, "model.bin"),),
            tuple(map(disk_file, unknown or (HOSTILE,))),
            {Path("hub/x"): (GOOD,)},
        ),
        artifacts={
            GOOD: KnownArtifact(GOOD, "org/good@v1", derived=(DERIVED,)),
            BAD: KnownArtifact(BAD, "org/bad@v1", problem="the policy needs a vouch", exit_status=4),
        },
        unsure=(disk_file("undecided"),),
        unread=(disk_file("a.zip!/../x", "an unpacker could write it outside its folder"),),
        nodes=(NodeAnswer("one.example", 3), NodeAnswer("two.example", problem="timed out")),
        files=7,
        bytes=35,
        tensors=SameTensorsFound(
            (SameTensors(Path("tuned"), (disk_file("tuned/one.safetensors"),), GOOD, COMPARED),),
            {GOOD: KnownArtifact(GOOD, "org/good@v1")},
        ),
    )
