"""Vectors of the log formats: trees, tiles, notes, checkpoints, cosignatures, proofs and policies."""

from __future__ import annotations

from typing import Any, Final

from comity.rules.tiles import ENTRIES, Tile, encode_entries, encode_tile, tiles_between
from comity.rules.tree_proofs import MemoryTree, consistency_proof, inclusion_proof
from comity.rules.witness import TlogPolicy
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import (
    Checkpoint,
    NoteSignature,
    SignedNote,
    cosign,
    cosigner_key,
    log_verifier_key,
    sign_note,
)
from comity.trust.tlog.proof import TlogProof
from support.seeded import seed, seeded_key

ORIGIN: Final = "node-a.example/log"
COSIGNER: Final = "node-b.example/cosigner"
LOG: Final = seeded_key("ed25519", "log")
LOG_VKEY: Final = log_verifier_key(ORIGIN, LOG.public)
COSIGNERS: Final = {alg: seeded_key(alg, f"cosigner {alg}") for alg in ("ed25519", "ml-dsa-44")}
TIME: Final = 1_795_162_000
ENTRY_COUNT: Final = 300
ENTRIES_OF_LOG: Final = [b'{"entry":%d}' % i for i in range(ENTRY_COUNT)]
TREE: Final = MemoryTree(leaf_hash(entry) for entry in ENTRIES_OF_LOG)
HEAD: Final = Checkpoint(ORIGIN, ENTRY_COUNT, TREE.root())


def merkle() -> dict[str, Any]:
    sizes = [*range(18), 31, 32, 33, 255, 256, 257, ENTRY_COUNT]
    inclusions = [
        (0, 1),
        (0, 2),
        (1, 2),
        (2, 3),
        (0, 7),
        (3, 7),
        (6, 7),
        (5, 8),
        (16, 17),
        (255, 257),
        (256, 257),
        (42, 300),
    ]
    consistency_proofs = [
        (0, 5),
        (1, 1),
        (1, 2),
        (3, 7),
        (4, 7),
        (6, 8),
        (7, 8),
        (8, 17),
        (16, 17),
        (255, 256),
        (256, 300),
        (257, 300),
    ]
    return {
        "about": 'RFC 6962 trees. Leaf i is the ASCII text {"entry":i}; proofs are listed as RFC 6962 orders them.',
        "roots": [{"size": size, "root_hex": TREE.root(size).hex()} for size in sizes],
        "inclusion": [
            {
                "index": index,
                "size": size,
                "proof_hex": [value.hex() for value in inclusion_proof(index, size, TREE.node)],
            }
            for index, size in inclusions
        ],
        "consistency": [
            {"old": old, "new": new, "proof_hex": [value.hex() for value in consistency_proof(old, new, TREE.node)]}
            for old, new in consistency_proofs
        ],
    }


def tiles() -> dict[str, Any]:
    named = [Tile(0, 0), Tile(0, 1234067), Tile(1, 0, 1), Tile(63, 999, 255), Tile(ENTRIES, 1000, 112)]
    return {
        "about": 'C2SP tlog-tiles. The log is that of merkle.json. An entry bundle has level "entries".',
        "paths": [
            {
                "level": "entries" if tile.level == ENTRIES else tile.level,
                "index": tile.index,
                "width": tile.width,
                "path": tile.path,
            }
            for tile in named
        ],
        "refused_paths": [
            "tile/0/0",
            "tile/0/x000/001",
            "tile/00/001",
            "tile/64/001",
            "tile/0/001.p/256",
            "tile/0/001.p/0",
        ],
        "growth": [
            {"old": old, "new": new, "paths": [tile.path for tile in tiles_between(old, new)]}
            for old, new in ((0, 0), (0, 1), (0, 256), (255, 257), (65_000, 70_000))
        ],
        "tiles": [
            {"path": tile.path, "data_hex": encode_tile(tile, TREE.node).hex()}
            for tile in (Tile(0, 1, 44), Tile(1, 0, 1))
        ],
        "bundles": [
            {"entries_hex": [entry.hex() for entry in entries], "data_hex": encode_entries(entries).hex()}
            for entries in ([b"one"], [b"one", b"", b"\xff" * 300])
        ],
        "refused_bundles_hex": ["00", "0001", "00036162", "000000"],
    }


def notes() -> dict[str, Any]:
    text = "Two keys sign this.\n\nThe text may hold empty lines, and “UTF-8”.\n"
    second = seeded_key("ed25519", "second")
    signatures = (sign_note(text, ORIGIN, LOG), sign_note(text, "Zürich.example/é", second))
    note = SignedNote(text, signatures).encode()
    stranger = SignedNote(text, (signatures[0], NoteSignature("stranger", b"abcd", b"signature of an unknown kind")))
    vkeys = [str(LOG_VKEY), str(log_verifier_key("Zürich.example/é", second.public))]
    return {
        "about": "C2SP signed-note, type 0x01. Each note is verified with both keys; a refused one breaks the format, "
        "a distrusted one has a known key's signature that is wrong, or none by a known key.",
        "seeds_hex": [seed("log").hex(), seed("second").hex()],
        "vkeys": vkeys,
        "accepted": [
            {"note": note.decode(), "text": text, "signers": vkeys},
            {"note": stranger.encode().decode(), "text": text, "signers": vkeys[:1]},
        ],
        "distrusted": [
            note.decode().replace("Two", "Six"),
            SignedNote(text, stranger.signatures[1:]).encode().decode(),
        ],
        "refused_hex": {
            "no final line feed": note[:-1].hex(),
            "CRLF": note.replace(b"\n", b"\r\n").hex(),
            "a hyphen for U+2014": note.replace("\u2014".encode(), b"-").hex(),
            "no signature": (text + "\n").encode().hex(),
            "a tab in the text": (b"\t" + note).hex(),
            "not UTF-8": (b"\xff" + note).hex(),
            "white space in a name": note.replace(b"node-a", b"node\xc2\xa0a").hex(),
            "'+' in a name": note.replace(b"node-a", b"node+a").hex(),
            "base64 without padding": note[:-2].hex() + b"\n".hex(),
            "101 signatures": SignedNote(text, tuple(NoteSignature(f"n{i}", b"abcd", b"x") for i in range(101)))
            .encode()
            .hex(),
        },
    }


def checkpoints() -> dict[str, Any]:
    root = "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0="
    empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    return {
        "about": "C2SP tlog-checkpoint without extension lines; origins of 1 to 255 bytes without white space or '+'.",
        "accepted": [
            {
                "text": checkpoint.text,
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root_hex": checkpoint.root.hex(),
            }
            for checkpoint in (HEAD, Checkpoint.parse(f"a\n0\n{empty}\n"), Checkpoint("x" * 255, 2**63 - 1, HEAD.root))
        ],
        "refused": {
            "an extension line": f"a\n1\n{root}\nmore\n",
            "no final line feed": f"a\n1\n{root}",
            "CRLF": f"a\r\n1\r\n{root}\r\n",
            "a leading zero": f"a\n01\n{root}\n",
            "a sign": f"a\n+1\n{root}\n",
            "digits that are not ASCII": f"a\n٣\n{root}\n",
            "a size of 2**63": f"a\n9223372036854775808\n{root}\n",
            "base64 without padding": f"a\n1\n{root[:-1]}\n",
            "base64 with trailing bits": f"a\n1\n{root[:-2]}1=\n",
            "a root of 31 bytes": f"a\n1\n{'A' * 42}==\n",
            "an empty origin": f"\n1\n{root}\n",
            "an origin of 256 bytes": f"{'x' * 256}\n1\n{root}\n",
            "a space in the origin": f"a b\n1\n{root}\n",
            "a '+' in the origin": f"a+b\n1\n{root}\n",
            "an empty log with another root": f"a\n0\n{root}\n",
        },
    }


def cosignatures() -> dict[str, Any]:
    ed25519, mldsa = (cosigner_key(COSIGNER, COSIGNERS[alg].public) for alg in ("ed25519", "ml-dsa-44"))
    name, origin = COSIGNER.encode(), ORIGIN.encode()
    return {
        "about": "C2SP tlog-cosignature, types 0x04 and 0x06. `message_hex` is what is signed.",
        "checkpoint": HEAD.text,
        "timestamp": TIME,
        "ed25519": {
            "seed_hex": seed("cosigner ed25519").hex(),
            "vkey": str(ed25519),
            "message_hex": f"cosignature/v1\ntime {TIME}\n{HEAD.text}".encode().hex(),
            "line": str(cosign(HEAD, COSIGNER, COSIGNERS["ed25519"], TIME)),
        },
        "ml-dsa-44": {
            "seed_hex": seed("cosigner ml-dsa-44").hex(),
            "vkey": str(mldsa),
            "message_hex": (
                b"subtree/v1\n\0"
                + (bytes([len(name)]) + name + TIME.to_bytes(8, "big"))
                + (bytes([len(origin)]) + origin + bytes(8) + ENTRY_COUNT.to_bytes(8, "big") + HEAD.root)
            ).hex(),
            "randomised_line": str(cosign(HEAD, COSIGNER, COSIGNERS["ml-dsa-44"], TIME)),
        },
    }


def proofs() -> dict[str, Any]:
    note = HEAD.signed(LOG).with_signatures(cosign(HEAD, COSIGNER, COSIGNERS["ed25519"], TIME))
    path = inclusion_proof(42, ENTRY_COUNT, TREE.node)
    proof = TlogProof(42, path, note).encode().decode()
    other = Checkpoint(ORIGIN, ENTRY_COUNT, leaf_hash(b"another tree")).signed(LOG)
    return {
        "about": "C2SP tlog-proof for entry 42 of the log of merkle.json, cosigned once. A refused proof breaks the "
        "format; a distrusted one does not hold for the leaf.",
        "log_vkey": str(LOG_VKEY),
        "leaf_hex": ENTRIES_OF_LOG[42].hex(),
        "accepted": [proof, TlogProof(42, path, note, b"not authenticated").encode().decode()],
        "distrusted": [
            TlogProof(43, path, note).encode().decode(),
            TlogProof(42, path[:-1], note).encode().decode(),
            TlogProof(42, (*path, HEAD.root), note).encode().decode(),
            TlogProof(42, path, other).encode().decode(),
            proof.replace("\n300\n", "\n299\n"),
        ],
        "refused": {
            "no header line": proof.partition("\n")[2],
            "another version": proof.replace("@v1", "@v2"),
            "no index": proof.replace("index 42\n", ""),
            "a leading zero": proof.replace("index 42", "index 042"),
            "an empty extra": proof.replace("index", "extra \nindex"),
            "a short hash": proof.replace("index 42\n", "index 42\nYQ==\n"),
            "64 hashes": proof.replace(
                "index 42\n", "index 42\n" + "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n" * 64
            ),
            "CRLF": proof.replace("\n", "\r\n"),
            "no checkpoint": proof.partition("\n\n")[0] + "\n",
        },
    }


def policies() -> dict[str, Any]:
    log = f"log {LOG_VKEY} https://node-a.example/\n"
    b, c, d = (cosigner_key(f"{name}.example", seeded_key("ed25519", name).public) for name in "bcd")
    witnesses = f"witness B {b}\nwitness C {c}\nwitness D {d} https://d.example/\n"
    note = HEAD.signed(LOG).with_signatures(
        *(cosign(HEAD, f"{name}.example", seeded_key("ed25519", name), TIME) for name in ("b", "c"))
    )
    two = f"{log}{witnesses}group G 2 B C D\nquorum G\n"
    nested = f"{log}{witnesses}group BC all B C\ngroup G any BC D\nquorum G\n"
    return {
        "about": "C2SP tlog-policy. `note` is signed by the log and cosigned by b.example and c.example. `printed` is "
        "the policy as this implementation writes it.",
        "note": note.encode().decode(),
        "satisfied": [
            {"policy": policy, "printed": str(TlogPolicy.parse(policy)), "cosigned": ["B", "C"]}
            for policy in (two, nested, f"# comment\n\n{log}\t{witnesses}quorum  B", f"{log}{witnesses}quorum none\n")
        ],
        "not_satisfied": [
            f"{log}{witnesses}quorum D\n",
            f"{log}{witnesses}group G all B C D\nquorum G\n",
            f"{log}{witnesses}group CD all C D\ngroup G all B CD\nquorum G\n",
        ],
        "refused": {
            "no quorum": log + witnesses,
            "two quorums": f"{two}quorum G\n",
            "an undefined quorum": f"{log}quorum X\n",
            "a quorum defined later": f"quorum B\n{witnesses}",
            "one key under two names": f"{witnesses}witness E {b}\nquorum none\n",
            "one name twice": f"{witnesses}group B any C\nquorum none\n",
            "none as a member": f"{witnesses}group G any none\nquorum none\n",
            "a member of two groups": f"{witnesses}group G any B\ngroup H any B\nquorum none\n",
            "a threshold of zero": f"{witnesses}group G 0 B\nquorum none\n",
            "more than all": f"{witnesses}group G 3 B C\nquorum none\n",
            "CRLF": two.replace("\n", "\r\n"),
            "a comment behind a line": "quorum none # comment\n",
        },
    }
