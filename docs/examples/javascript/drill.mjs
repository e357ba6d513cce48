#!/usr/bin/env node
// Checks a drill report from the published formats alone: who signed it, that the statement sums up this report, that
// it is of the plan and kit that you name, and by the clocks of members of a federation that it is not back-dated.
// What is checked and what is not: ../../guide/other-languages.md

import { readFileSync } from "node:fs";
import { checkpoint, logged } from "./proof.mjs";
import { Entry, canonical, firstKeys, hex, readFederation, refuse, require, run, sha256 } from "./reader.mjs";

const USAGE = "drill.mjs --federation FILE --body SHA256 --signer ID --plan FILE --artifact SHA256 DRILL.JSON";
const AHEAD = 600; // seconds by which a clock may be ahead
const LOGGED_WITHIN = 24 * 3600; // seconds after its end within which a report is logged
const NOT_CHECKED = ["ml-dsa-65", "ml-dsa-44", "rotations", "what happened: the report is its signer's word"];

function secondsUntil(report, name) {
  const [start, found] = ["cut", name].map((wanted) => report.phases.find(({ phase }) => phase === wanted));
  return start && found?.passed ? Math.ceil((found.ended - start.began) / 1000) : null;
}

function checkTimes(report, before, proof) {
  const [started, ended] = [report.started, report.ended].map((text) => Date.parse(text) / 1000);
  const [begunAfter, loggedBy] = [before?.times.at(-2), proof?.times[1]]; // one clock alone proves nothing
  require(started <= ended, "it says that it ended before it began");
  require(!(begunAfter > started + AHEAD), "back-dated: it has a checkpoint cosigned after it says that it began");
  require(!(ended > loggedBy + AHEAD), "it says that it ended after it was logged");
  require(!(loggedBy > ended + LOGGED_WITHIN), "back-dated: it was logged more than a day after it says that it ended");
  const [begun_after, logged_by] = [begunAfter, loggedBy].map((at) => (at ? new Date(at * 1000).toISOString() : null));
  return { begun_after, logged_by };
}

await run(USAGE, { options: ["federation", "body", "signer", "plan", "artifact"], count: 1 }, (wanted, [file]) => {
  const { nodes } = readFederation(wanted.federation, wanted.body);
  const data = readFileSync(file);
  const report = JSON.parse(data);
  require(report.schema === "comity/drill-report/v1" && canonical(report) === data.toString(), "not a drill report");
  const lines = readFileSync(`${file}.intoto.jsonl`, "utf-8").split("\n").filter((line) => line);
  const entries = lines.map((line) => new Entry(line));
  const said = entries.at(-1) ?? refuse("nobody signed it");
  const { keys, threshold } = firstKeys(entries, wanted.signer);
  const own = said.kind === "drilled" && said.body.by.identity === wanted.signer;
  require(own && said.signedByKeys(keys, threshold), `${wanted.signer} did not sign it`);
  const side = { digest: hex(sha256(data)), size: data.length };
  require(canonical(said.body.report) === canonical(side), "another report was signed");
  const seconds = { answered: secondsUntil(report, "self-test"), quality: secondsUntil(report, "samples") };
  const { plan, passed, phases, service, kit } = report;
  const { by, time } = said.body;
  const summary = { ...seconds, by, objects: [side], passed, plan, report: side, service, time };
  require(canonical(said.body) === canonical(summary), "the signed summary differs from the report");
  const one = said.statement.subject.length === 1 && said.subject === report.kit_artifact;
  require(one, "the statement is about another kit");
  const answered = seconds.answered !== null && phases.every((phase) => phase.passed);
  require(!passed || answered, "it passed without an answer");
  require(Date.parse(time) >= Date.parse(report.ended), "it was signed before the drill ended");
  require(plan === hex(sha256(readFileSync(wanted.plan))), "it is of another plan");
  require(report.kit_artifact === wanted.artifact, "it is of another kit");
  const proof = logged(`${file}.tlog-proof`, Buffer.from(lines.at(-1)), nodes);
  const times = checkTimes(report, report.before ? checkpoint(report.before, nodes) : null, proof);
  return { service, kit, passed, ...seconds, ...times, logged: !!proof, not_checked: NOT_CHECKED };
});
