#!/usr/bin/env node
// Checks the folder of a run-kit from the published formats alone: its files are those of the artifact, kit.json names
// each of them and nothing else, and the lock file names exactly its wheels, by their hashes, and no other source.
// What is checked and what is not: ../../guide/other-languages.md

import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";
import { artifactOf, canonical, hex, require, run, sha256 } from "./reader.mjs";

const LOCKED = /^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?==[A-Za-z0-9.!+_-]+( --hash=sha256:[0-9a-f]{64})+$/;
const NOT_CHECKED = ["who published it", "names, versions and licences", "that it installs, starts and answers"];

function hashed(folder, path) {
  const hash = createHash("sha256");
  const [buffer, file] = [Buffer.alloc(1024 * 1024), openSync(join(folder, path))];
  let size = 0;
  for (let count; (count = readSync(file, buffer)) > 0; size += count) hash.update(buffer.subarray(0, count));
  closeSync(file);
  return { path, sha256: hash.digest("hex"), size };
}

// Every file; `.comity` has the evidence that a pull keeps beside them.
function listed(folder, below = "") {
  const entries = readdirSync(join(folder, below), { withFileTypes: true });
  return entries.filter(({ name }) => below || name !== ".comity").flatMap((entry) => {
    const path = below ? `${below}/${entry.name}` : entry.name;
    require(entry.isDirectory() || entry.isFile(), `${path} is neither a file nor a folder`);
    return entry.isDirectory() ? listed(folder, path) : [hashed(folder, path)];
  });
}

function lockedWheels(text) {
  const lines = text.replace(/\\\r?\n\s*/g, "").split(/\r?\n/).map((line) => line.replace(/(^|\s)#.*$/, "").trim());
  const wanted = lines.filter((line) => line).map((line) => line.replace(/\s+/g, " "));
  for (const line of wanted) require(LOCKED.test(line), `the lock has a line that is no version with hashes: ${line}`);
  return wanted.flatMap((line) => line.match(/(?<=sha256:)[0-9a-f]{64}/g));
}

await run("kit.mjs FOLDER ARTIFACT", { count: 2 }, (_, [folder, artifact]) => {
  const files = listed(folder);
  require(artifactOf(files) === artifact, "the files of the folder are not those of the artifact");
  const text = readFileSync(join(folder, "kit.json"), "utf-8");
  const kit = JSON.parse(text);
  require(hex(sha256(text)) === files.find(({ path }) => path === "kit.json")?.sha256, "kit.json changed meanwhile");
  require(kit.schema === "comity/kit/v1" && canonical(kit) === text, "kit.json is not a canonical comity/kit/v1");
  const parts = kit.parts.map(({ path, sha256, size }) => ({ path, sha256, size }));
  const others = files.filter(({ path }) => path !== "kit.json");
  require(canonical(parts) === canonical(others), "the parts that kit.json names are not the files of the folder");
  const wheels = parts.filter(({ path }) => path.startsWith("wheels/")).map((part) => part.sha256).sort();
  const lock = parts.some(({ path }) => path === "requirements.lock");
  const locked = lock ? lockedWheels(readFileSync(join(folder, "requirements.lock"), "utf-8")).sort() : [];
  require(canonical(wheels) === canonical(locked), "the lock does not name exactly the wheels of the kit");
  const weights = kit.weights.flatMap((each) => each.files.map(({ path }) => path)).sort();
  const below = parts.map(({ path }) => path).filter((path) => path.startsWith("weights/")).sort();
  require(canonical(weights) === canonical(below), "the weights that kit.json names are not its files below weights/");
  const weights_of = kit.weights.map((each) => each.artifact).filter((of) => of);
  const counted = { parts: parts.length, wheels: wheels.length };
  return { artifact, kit: kit.name, service: kit.service, ...counted, weights_of, not_checked: NOT_CHECKED };
});
