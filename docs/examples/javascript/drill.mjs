#!/usr/bin/env node
// Checks a drill report from the published formats alone: who signed it, that the statement sums up this report, that it
// is of the plan and kit that you name, and by the clocks of members of a pinned federation that it is not back-dated.
// What is checked and what is not: ../../guide/other-languages.md

import { existsSync, readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import {
  Entry, base64, canonical, cosignedAt, ed25519, firstKeys, hex, leafHash, nodeHash, noteSignatures, readFederation,
  refuse, require, run, sha256,
} from "./reader.mjs";

const AHEAD = 600; // seconds by which a clock may be ahead
const LOGGED_WITHIN = 24 * 3600; // seconds after its end within which a report is logged

// A checkpoint, and for each member but that of its log when it cosigned, the earliest first; null of an unknown log.
function checkpoint(text, nodes) {
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
  let hash = leafHash(line), at = index, last = size - 1;
  for (const sibling of hashes) {
    require(last > 0, "the proof has too many hashes");
    if (at % 2 === 0 && at !== last) hash = nodeHash(hash, sibling);
    else {
      hash = nodeHash(sibling, hash);
      for (; at % 2 === 0 && at > 0; at /= 2) last = Math.floor(last / 2);
    }
    [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
  }
  require(index < size && last === 0 && hash.equals(root), "the proof does not lead to its checkpoint");
}

function logged(file, line, nodes) {
  if (!existsSync(file)) return null;
  const [head, note] = readFileSync(file, "utf-8").split(/\n\n(.*)/s);
  const [version, ...lines] = head.split("\n").filter((text) => !text.startsWith("extra "));
  const index = /^index (\d+)$/.exec(lines.shift() ?? "");
  require(version === "c2sp.org/tlog-proof@v1" && index, "not a proof");
  const found = checkpoint(note, nodes);
  if (found) included(line, Number(index[1]), lines.map(base64), found);
  return found;
}

function secondsUntil(report, name) {
  const [start, found] = ["cut", name].map((wanted) => report.phases.find(({ phase }) => phase === wanted));
  return start && found?.passed ? Math.ceil((found.ended - start.began) / 1000) : null;
}

function checkTimes(report, before, proof) {
  const [started, ended] = [report.started, report.ended].map((text) => Date.parse(text) / 1000);
  require(started <= ended, "it says that it ended before it began");
  const begunAfter = before?.times.at(-2); // one clock alone proves nothing
  const loggedBy = proof?.times[1];
  require(!(begunAfter > started + AHEAD), "back-dated: it has a checkpoint that was cosigned after it says that it began");
  require(!(ended > loggedBy + AHEAD), "it says that it ended after it was logged");
  require(!(loggedBy > ended + LOGGED_WITHIN), "back-dated: it was logged more than a day after it says that it ended");
  const shown = (time) => (time ? new Date(time * 1000).toISOString() : null);
  return { begun_after: shown(begunAfter), logged_by: shown(loggedBy) };
}

await run(async () => {
  const names = ["federation", "body", "signer", "plan", "artifact"];
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
  const { values, positionals: [file] } = parseArgs({ options, allowPositionals: true });
  if (!file || names.some((name) => !values[name])) {
    console.error("drill.mjs --federation FILE --body SHA256 --signer ID --plan FILE --artifact SHA256 DRILL.JSON");
    return 2;
  }
  const { nodes } = readFederation(values.federation, values.body);
  const data = readFileSync(file), report = JSON.parse(data);
  require(report.schema === "comity/drill-report/v1" && canonical(report) === data.toString(), "not a drill report");
  const lines = readFileSync(`${file}.intoto.jsonl`, "utf-8").split("\n").filter((line) => line);
  const entries = lines.map((line) => new Entry(line)), said = entries.at(-1) ?? refuse("nobody signed it");
  const { keys, threshold } = firstKeys(entries, values.signer);
  const own = said.kind === "drilled" && said.body.by.identity === values.signer && said.signedByKeys(keys, threshold);
  require(own, `${values.signer} did not sign it`);
  const side = { digest: hex(sha256(data)), size: data.length };
  require(canonical(said.body.report) === canonical(side), "another report was signed");
  const seconds = { answered: secondsUntil(report, "self-test"), quality: secondsUntil(report, "samples") };
  const { plan, passed, service } = report, { by, time } = said.body;
  const summary = { ...seconds, by, objects: [side], passed, plan, report: side, service, time };
  require(canonical(said.body) === canonical(summary), "the signed summary differs from the report");
  require(said.statement.subject.length === 1 && said.subject === report.kit_artifact, "the statement is about another kit");
  require(!passed || (seconds.answered !== null && report.phases.every((phase) => phase.passed)), "it passed without an answer");
  require(Date.parse(time) >= Date.parse(report.ended), "it was signed before the drill ended");
  require(plan === hex(sha256(readFileSync(values.plan))), "it is of another plan");
  require(report.kit_artifact === values.artifact, "it is of another kit");
  const before = report.before ? checkpoint(report.before, nodes) : null;
  const proof = logged(`${file}.tlog-proof`, Buffer.from(lines.at(-1)), nodes);
  const times = checkTimes(report, before, proof);
  const not_checked = ["ml-dsa-65", "ml-dsa-44", "rotations", "what happened: the report is its signer's word"];
  console.log(JSON.stringify({ service, kit: report.kit, passed, ...seconds, ...times, logged: !!proof, not_checked }, null, 1));
  return 0;
});
