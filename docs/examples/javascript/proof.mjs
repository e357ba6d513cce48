// What checkpoints and proofs of inclusion prove, for drill.mjs: notes of C2SP's tlog-checkpoint and tlog-cosignature,
// and files of tlog-proof. What is checked and what is not: ../../guide/other-languages.md

import { existsSync, readFileSync } from "node:fs";
import { base64, cosignedAt, ed25519, leafHash, nodeHash, noteSignatures, require } from "./reader.mjs";

// A checkpoint, and for each member but that of its log when it cosigned, the earliest first; null of an unknown log.
export function checkpoint(text, nodes) {
  const note = noteSignatures(text);
  const node = nodes.find(({ log }) => note.by(log).length > 0);
  if (!node) return null;
  const signed = note.by(node.log).some((signature) => ed25519(node.log.raw, Buffer.from(note.text), signature));
  require(signed, "a checkpoint is not signed by its log");
  const times = new Map();
  for (const other of nodes.filter(({ member }) => member.id !== node.member.id)) {
    const at = cosignedAt(note, other);
    if (at > 0) times.set(other.member.id, Math.max(at, times.get(other.member.id) ?? 0));
  }
  const [, size, root] = note.text.split("\n");
  return { size: Number(size), root: base64(root), times: [...times.values()].sort((a, b) => a - b) };
}

// RFC 9162, section 2.1.3.2.
function included(line, index, hashes, { size, root }) {
  let hash = leafHash(line);
  let at = index;
  let last = size - 1;
  for (const sibling of hashes) {
    require(last > 0, "the proof has too many hashes");
    if (at % 2 === 0 && at !== last) {
      hash = nodeHash(hash, sibling);
    } else {
      hash = nodeHash(sibling, hash);
      for (; at % 2 === 0 && at > 0; at /= 2) last = Math.floor(last / 2);
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  require(index < size && last === 0 && hash.equals(root), "the proof does not lead to its checkpoint");
}

// The checkpoint to which the proof in a file leads from a line of a log; null without a file, or of an unknown log.
export function logged(file, line, nodes) {
  if (!existsSync(file)) return null;
  const [head, note] = readFileSync(file, "utf-8").split(/\n\n(.*)/s);
  const [version, ...lines] = head.split("\n").filter((text) => !text.startsWith("extra "));
  const index = /^index (\d+)$/.exec(lines.shift() ?? "");
  require(version === "c2sp.org/tlog-proof@v1" && index, "not a proof");
  const found = checkpoint(note, nodes);
  if (found) included(line, Number(index[1]), lines.map(base64), found);
  return found;
}
