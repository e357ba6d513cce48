#!/usr/bin/env node
// Fetches one file of a model from the gateway of any node, and verifies it against a federation file that you pinned.
// Node.js 20 or newer, its standard library, and nothing else. What is checked and what is not: ../../guide/other-languages.md

import { createHash, createPublicKey, verify } from "node:crypto";
import { closeSync, openSync, readFileSync, realpathSync, renameSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const MAX_ENTRIES = 1_000_000;
const MiB = 1024 * 1024;

export class Refused extends Error {}
export const refuse = (why) => { throw new Refused(why); };
export const require = (holds, why) => holds || refuse(why);

export const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
export const hex = (data) => Buffer.from(data).toString("hex");

export function base64(text) {
  const data = Buffer.from(text, "base64");
  return data.toString("base64") === text ? data : refuse("not canonical base64");
}

// RFC 8785 for what our documents contain: no fractions.
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

async function get(url, limit) {
  const answer = await fetch(url);
  require(answer.ok, `${url}: status ${answer.status}`);
  const parts = [];
  let size = 0;
  for await (const part of answer.body) {
    size += part.length;
    require(size <= limit, `${url}: more than ${limit} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

// --- signatures: the Ed25519 halves

export function ed25519(raw, message, signature) {
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
  return raw.length === 32 && signature.length === 64 && verify(null, message, key, signature);
}

const keyId = (algorithm, raw) => hex(sha256(`${algorithm}\n`, raw));

export class Entry {
  constructor(line, origin, index) {
    const envelope = JSON.parse(line);
    require(envelope.payloadType === PAYLOAD_TYPE, "not a statement");
    const payload = base64(envelope.payload);
    this.origin = origin;
    this.index = index;
    this.statement = JSON.parse(payload);
    this.signatures = new Map(envelope.signatures.map(({ keyid, sig }) => [keyid, base64(sig)]));
    this.signed = Buffer.concat([
      Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload,
    ]);
  }

  get kind() { return /^urn:comity:([a-z-]+):v1$/.exec(this.statement.predicateType)?.[1] ?? ""; }
  get body() { return this.statement.predicate ?? {}; }
  get subject() { return this.statement.subject[0].digest.sha256; }

  signedBy(raw) {
    const signature = this.signatures.get(keyId("ed25519", raw));
    return signature !== undefined && ed25519(raw, this.signed, signature);
  }

  // At least `threshold` keys, each by its Ed25519 half.
  signedByKeys(keys, threshold) {
    const signers = keys.filter((key) => key.ed25519 && this.signedBy(base64(key.ed25519)));
    return threshold >= 1 && signers.length >= threshold;
  }
}

// --- the federation file

function verifierKey(text) {
  const [name, id, ...rest] = text.split("+");
  const data = base64(rest.join("+"));
  const key = { text, name, type: data[0], raw: data.subarray(1), id: sha256(`${name}\n`, data).subarray(0, 4) };
  return hex(key.id) === id ? key : refuse(`${name}: the id of the key is not that of the key`);
}

// The newest body has to be the one whose digest you compared; it names all members, so no certificate is read.
export function readFederation(file, digest) {
  const document = JSON.parse(readFileSync(file, "utf-8"));
  require(document.schema === "comity/federation/v1", "not a federation file");
  const text = document.epochs.at(-1).body;
  require(hex(sha256(text)) === digest, `the newest charter body is ${hex(sha256(text))}, and you pinned ${digest}`);
  const body = JSON.parse(text);
  const nodes = document.nodes.map(({ record }) => readNode(new Entry(record), body)).filter((node) => node);
  return { body, nodes };
}

function readNode(entry, body) {
  const member = body.members.find(({ id }) => id === entry.body.by.identity);
  if (!member) return null; // of a member that has left: its log proves nothing under this body
  const record = entry.body;
  const log = verifierKey(record.log);
  const cosigners = record.cosigners.map(verifierKey).filter(({ type }) => type === 4);
  const bound = [log.raw, base64(record.online.ed25519), ...cosigners.map(({ raw }) => raw)];
  require(entry.kind === "node-record" && log.type === 1, "not a node record");
  require(entry.signedByKeys(member.governance_keys, member.threshold), `${record.name}: not signed by its member`);
  require(bound.every((raw) => entry.signedBy(raw)), `${record.name}: a key that it binds did not sign it`);
  return { name: record.name, member, log, cosigners };
}

// --- a log: every entry, under a signed checkpoint

export const leafHash = (data) => sha256(Buffer.from([0]), data);
export const nodeHash = (left, right) => sha256(Buffer.from([1]), left, right);

function root(hashes) {
  if (hashes.length === 0) return sha256("");
  if (hashes.length === 1) return hashes[0];
  const split = 2 ** Math.floor(Math.log2(hashes.length - 1));
  return nodeHash(root(hashes.slice(0, split)), root(hashes.slice(split)));
}

function tilePath(index, width) {
  const groups = [String(index % 1000).padStart(3, "0")];
  for (let rest = Math.floor(index / 1000); rest > 0; rest = Math.floor(rest / 1000)) {
    groups.unshift(`x${String(rest % 1000).padStart(3, "0")}`);
  }
  return `tile/entries/${groups.join("/")}${width === 256 ? "" : `.p/${width}`}`;
}

export function noteSignatures(note) {
  const end = note.indexOf("\n\n");
  require(end > 0, "not a signed note");
  const text = note.slice(0, end + 1);
  const lines = note.slice(end + 2).split("\n").filter((line) => line);
  const signatures = lines.map((line) => {
    const [, name, blob] = /^— (\S+) (\S+)$/.exec(line) ?? refuse("not a signature line");
    const data = base64(blob);
    return { name, id: data.subarray(0, 4), signature: data.subarray(4) };
  });
  const by = (key) => signatures.filter(({ name, id }) => name === key.name && id.equals(key.id));
  return { text, by: (key) => by(key).map(({ signature }) => signature) };
}

async function readLog(node, gateway, nodes) {
  const prefix = `${gateway}/tlog/${hex(sha256(node.log.text))}`;
  const note = noteSignatures((await get(`${prefix}/checkpoint`, MiB)).toString());
  const signed = note.by(node.log).some((signature) => ed25519(node.log.raw, Buffer.from(note.text), signature));
  require(signed, `${node.log.name}: the checkpoint is not signed by the log`);
  const [origin, count, rootText] = note.text.split("\n");
  const size = Number(count);
  require(origin === node.log.name && String(size) === count && size <= MAX_ENTRIES, `${origin}: not its checkpoint`);
  const lines = [];
  for (let index = 0; index * 256 < size; index++) {
    const width = Math.min(256, size - index * 256);
    const bundle = await get(`${prefix}/${tilePath(index, width)}`, 256 * 65537);
    for (let at = 0; at < bundle.length; at += 2 + bundle.readUInt16BE(at)) {
      lines.push(bundle.subarray(at + 2, at + 2 + bundle.readUInt16BE(at)));
    }
  }
  require(lines.length === size, `${origin}: ${lines.length} entries under a checkpoint of ${size}`);
  require(root(lines.map(leafHash)).equals(base64(rootText)), `${origin}: its entries are not those of its checkpoint`);
  const members = nodes.filter((other) => other.member.id !== node.member.id && cosignedAt(note, other) >= 0);
  const cosigners = [...new Set(members.map(({ member }) => member.name))].sort();
  return { origin, cosigners, entries: lines.flatMap((line, index) => readable(line, origin, index)) };
}

function readable(line, origin, index) {
  try {
    return [new Entry(line, origin, index)];
  } catch {
    return []; // a line of another form has no effect
  }
}

// When a node cosigned a note last, in seconds since 1970; -1 if it did not.
export function cosignedAt(note, node) {
  const times = node.cosigners.flatMap((key) => note.by(key).filter((blob) => blob.length === 72).map((blob) => {
    const time = blob.readBigUInt64BE(0);
    const message = Buffer.from(`cosignature/v1\ntime ${time}\n${note.text}`);
    return ed25519(key.raw, message, blob.subarray(8)) ? Number(time) : -1;
  }));
  return Math.max(-1, ...times);
}

async function readLogs(nodes, gateway) {
  const logs = [];
  const missing = [];
  for (const node of nodes) {
    try {
      logs.push(await readLog(node, gateway, nodes));
    } catch (error) {
      if (!/status 404$/.test(error.message)) throw error;
      missing.push(node.log.name);
    }
  }
  return { logs, missing };
}

// --- who published what

function publication(entries, body, name, publisher) {
  const named = entries.filter((entry) => entry.kind === "published" && entry.body.name === name);
  require(named.length > 0, `no log says that anybody published ${name}`);
  const bound = body.namespaces.find((space) => space.name === name.split("/")[0])?.publisher;
  const claimants = [...new Set(named.map((entry) => entry.body.by.identity))].join(", ");
  const expected = publisher ?? bound ?? refuse(`nobody binds the namespace; name the publisher: one of ${claimants}`);
  const keys = firstKeys(entries, expected);
  const own = named.filter((entry) => entry.body.by.identity === expected && entry.signedByKeys(keys.keys, keys.threshold));
  require(own.length > 0, `${expected} did not sign that it published ${name}; claimed by ${claimants}`);
  require(new Set(own.map((entry) => entry.subject)).size === 1, `${expected} gave ${name} to several artifacts`);
  return own[0];
}

export function firstKeys(entries, identity) {
  const by = (kind) => entries.filter((entry) => entry.kind === kind && entry.body.by?.identity === identity);
  require(by("rotated").length === 0, `${identity} changed its keys, and this reader does not follow rotations`);
  const inception = by("inception")[0] ?? refuse(`no log has the inception of ${identity}`);
  const record = inception.body.record;
  require(hex(sha256(canonical(record))) === identity, "an inception record is not the one that its id names");
  require(inception.signedByKeys(record.keys, record.keys.length), "an inception is not signed by all of its keys");
  require(record.threshold > record.keys.length / 2, "an inception has too low a threshold");
  return record;
}

// --- the manifest and the file

// The digest of the artifact that has these files, which are sorted.
export function artifactOf(files) {
  files.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
  const size = files.reduce((sum, file) => sum + file.size, 0);
  return hex(sha256(canonical({ schema: "comity/manifest/v1", files, size })));
}

async function manifest(gateway, name, artifact) {
  const [repository, version] = name.split("@");
  const shown = JSON.parse(await get(`${gateway}/api/models/${repository}/revision/${version}?blobs=true`, 64 * MiB));
  const files = shown.siblings.map(({ rfilename, lfs }) => ({ path: rfilename, sha256: lfs.sha256, size: lfs.size }));
  require(artifactOf(files) === artifact, "the files that the gateway lists are not those of the artifact");
  return new Map(files.map((file) => [file.path, file]));
}

// Under another name until its hash is right: nobody takes a wrong file for the model.
async function download(url, file, out) {
  const answer = await fetch(url);
  require(answer.ok, `${url}: status ${answer.status}`);
  const part = openSync(`${out}.part`, "w");
  const hash = createHash("sha256");
  let size = 0;
  for await (const bytes of answer.body) {
    size += bytes.length;
    require(size <= file.size, `${file.path}: longer than what was published`);
    hash.update(bytes);
    writeSync(part, bytes);
  }
  closeSync(part);
  require(size === file.size && hash.digest("hex") === file.sha256, `${file.path}: not the bytes that were published`);
  renameSync(`${out}.part`, out);
}

async function main(values, [name, path]) {
  const { body, nodes } = readFederation(values.federation, values.body);
  const { logs, missing } = await readLogs(nodes, values.gateway);
  const entries = logs.flatMap((log) => log.entries);
  const published = publication(entries, body, name, values.publisher);
  const files = await manifest(values.gateway, name, published.subject);
  const file = files.get(path) ?? refuse(`the artifact has no file ${path}`);
  const [repository, version] = name.split("@");
  const url = `${values.gateway}/${repository}/resolve/${version}/${path.split("/").map(encodeURIComponent).join("/")}`;
  await download(url, file, values.out);
  const log = logs.find(({ origin }) => origin === published.origin);
  return {
    artifact: published.subject,
    publisher: published.body.by.identity,
    log: published.origin,
    entry: published.index,
    cosigners: log.cosigners,
    logs_not_at_this_gateway: missing,
    advisories: entries.filter((entry) => entry.kind === "advisory" && entry.subject === published.subject)
      .map((entry) => ({ kind: entry.body.kind, claimed_by: Object.values(entry.body.by)[0] })),
    sha256: file.sha256,
    size: file.size,
    not_checked: ["ml-dsa-65", "ml-dsa-44", "certificates of the charter", "rotations"],
  };
}

// Prints what `main` found with the options and the `count` arguments of the command line. Exit status 2: one is missing;
// 3: something did not verify; 5: it could not be read.
export async function run(usage, { options = [], optional = [], count }, main) {
  const known = Object.fromEntries([...options, ...optional].map((name) => [name, { type: "string" }]));
  try {
    const { values, positionals } = parseArgs({ options: known, allowPositionals: true });
    if (positionals.length !== count || options.some((name) => !values[name])) {
      console.error(usage);
      process.exitCode = 2;
    } else {
      console.log(JSON.stringify(await main(values, positionals), null, 1));
    }
  } catch (error) {
    console.error(`refused: ${error.message}`);
    process.exitCode = error instanceof Refused ? 3 : 5;
  }
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const usage =
    "reader.mjs --federation FILE --body SHA256 --gateway URL [--publisher ID] --out FILE NAME@VERSION PATH";
  const options = ["federation", "body", "gateway", "out"];
  await run(usage, { options, optional: ["publisher"], count: 2 }, main);
}
