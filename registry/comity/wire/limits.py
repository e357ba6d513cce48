"""Limits of the protocol: sizes of messages and of their fields, and times.

A peer that exceeds a limit is refused before memory is allocated. Limits of formats (a line, a tile, a manifest) are
defined in comity.trust; those repeated here limit messages. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from typing import Final

KiB: Final = 1024
MiB: Final = 1024 * KiB

# One message: the default of gRPC, on both sides. Data is sent in streams of smaller chunks.
MESSAGE: Final = 4 * MiB
# One message of a data stream. Measured: larger ones are not faster, smaller ones slower (64 KiB: half the rate).
CHUNK: Final = 1 * MiB
# Minimum size of each message of a data stream except the last, so that a client cannot send single bytes.
MIN_CHUNK: Final = 64 * KiB
# What protobuf may add to the bytes of each message of a stream.
MESSAGE_COST: Final = 64

# One log entry: tlog-tiles stores its length in 16 bits.
LINE: Final = 65_535
# Lines in one batch: together with the limit on bytes, this matters only for short lines.
BATCH_LINES: Final = 4_096
# Entries a GetEntries call may ask for: 256 full tiles; a longer catch-up is several calls and can resume.
ENTRIES_PER_CALL: Final = 65_536
# A note with two cosignatures (3.4 KiB together) from each of 100 members, with a margin.
NOTE: Final = 512 * KiB
# A note, 64 hashes, and the extra data of the line.
PROOF: Final = 1 * MiB
# RFC 6962 proofs in trees of at most 2**63 leaves.
INCLUSION_HASHES: Final = 64
CONSISTENCY_HASHES: Final = 128

# Answers that grow with the federation: the items and total bytes that a client accepts.
LOGS: Final = 10_000
CLAIMS: Final = 10_000
RESOLVED: Final = 4_000
# Authors whose statements an asker wants first: those whom a policy names.
NAMED: Final = 256
# Lines that an asker has: with as many named authors, a request of a lookup stays below its 16 KiB.
HELD: Final = 768
# References to lines in one message.
REFERENCES: Final = 256
# Answers to questions about one artifact in one answer, and the bytes of the lines and references of one of them.
FOUND: Final = 8
FOUND_BYTES: Final = 1 * MiB
FOUND_MANIFEST: Final = 64 * KiB
# Prefixes of digests of files in one question, files of one prefix (those of members, and those of others), and the
# files of one artifact in one message of the answer. A question may stand for so many files.
FILE_PREFIXES: Final = 1_000
PREFIX_FILES: Final = 4_096
FILES_PART: Final = 8_192
FILES_ASKED: Final = 65_536
FILES_MESSAGES: Final = 10_000
# Records of the index of files in one message and in one answer, and the messages of that.
INDEX_PART: Final = 1 * MiB
INDEX_CALL: Final = 16 * MiB
INDEX_MESSAGES: Final = 64
# What concerns a publisher in one answer, and the messages of that, with the keys of the authors.
CONCERNS_LISTED: Final = 100
CONCERNS: Final = 10_000
# Counts of descent: artifacts of one answer, their different sets of lineage roots, and those that are named.
DESCENT_ARTIFACTS: Final = 2_048
DESCENT_COUNTS: Final = 1_024
DESCENT_REQUIRING: Final = 16
PROOFS: Final = 1_000
MISBEHAVIOUR: Final = 10_000
ANSWER: Final = 64 * MiB
MISBEHAVIOUR_PARTS: Final = 16
SEARCH_PAGE: Final = 50
# Advisories of publishers about what was found on one page.
SEARCH_ADVISORIES: Final = 200

CHARTER_BODY: Final = 4 * MiB
# INTENT, RATIFY and consent lines of several rounds for a federation of a thousand members.
CERTIFICATE_LINES: Final = 16_384
IDENTITY_LINES: Final = 64
# Epochs of one answer: one epoch per week for twenty years.
EPOCHS: Final = 1_000
# Lines of one answer about the next epoch (200 members, each at its node's quota, and the identities that they name),
# or about one offer.
ANSWER_LINES: Final = 65_536
ANSWER_BYTES: Final = 4 * ANSWER
# A card: an inception, rotations, records of a few nodes and their addresses.
ASK_LINES: Final = 32
ASK_BYTES: Final = 256 * KiB
ASKS: Final = 256
CAPABILITIES: Final = 64
# A host name of 253 characters, a port, and the path of a proxy.
GATEWAY_URL: Final = 512

# A side object or a manifest, as in comity.trust.
OBJECT: Final = 64 * MiB
# 36 bytes per piece of 4 MiB: a blob of 7 TiB.
RECORDS: Final = 64 * MiB
STAT_DIGESTS: Final = 1_000
OBJECTS: Final = 256
"""Objects of one `GetObjects`."""
SMALL_OBJECT: Final = 256 * 1024
OBJECTS_BYTES: Final = 16 * MiB
"""Bytes of the answer to one `GetObjects`."""
LOCATIONS: Final = 16
# One Read: large enough to amortise the call, and it ends within the longest deadline at 300 KiB/s.
READ: Final = 1024 * MiB

SUBMIT_LINES: Final = 64
SUBMIT_BYTES: Final = 3 * MiB
MISSING: Final = 2_000

# Offers and requests of one answer; the next page begins after the last one.
OFFERS: Final = 1_000
GRANTS: Final = 10_000
JURISDICTIONS: Final = 64
# Listed statements about one grant, besides its chain.
GRANT_STATEMENTS: Final = 256
# A record, the line that it answers, and the identity lines of that line's author.
ALLOCATED: Final = 8

# An import: the text of the terms, the hosts of files, and a few events per second for an hour.
TERMS: Final = 1 * MiB
UPSTREAM_HOSTS: Final = 16
IMPORT_EVENTS: Final = 1_000_000
QUEUED_IMPORTS: Final = 100

# News of logs: one message, one log, and one call, which lasts an hour. The reader limits the rate.
POSITION: Final = 64
NEWS_LOGS: Final = 256
NEWS_MESSAGES: Final = 1_000_000
NEWS_BYTES: Final = 1024 * MiB
CHECKPOINT: Final = 16 * KiB
# Two signatures by each of a charter's members, and as many by former ones and nodes that a member has besides.
COSIGNATURES: Final = 1_024
COSIGNATURE: Final = 8 * KiB
OWN_KEYS: Final = 4
# Logs of one GetCosignatures call.
ASKED_LOGS: Final = 64
# Calls for news that one caller may keep open.
NEWS_CALLS: Final = 2

STATUS_ITEMS: Final = 10_000
# Artifacts that a status names as examples; the rest is counted.
STATUS_EXAMPLES: Final = 64

# Artifacts of one page, copies of one artifact, auditors of one copy, and logged audits of one answer.
COPIES_PAGE: Final = 200
COPIES: Final = 2_000
AUDIT_RESULTS: Final = 64
AUDIT_LINES: Final = 64
CARRIED_CHALLENGES: Final = 256
"""Challenges that are drawn at once, for one file."""

# A page that answers a question about copies: the artifacts that it counts, and those that it lists, or names.
FOLD_ARTIFACTS: Final = 4_096
FOLD_LISTED: Final = 2_048
# Different copies of one such page: a few states for each node.
FOLD_COPIES: Final = 10_000

# Pins of one answer, with their copies.
PIN_BYTES: Final = 64 * MiB

# Concurrent calls on one connection; `server.Guard` also limits them per peer.
STREAMS: Final = 128

# A handshake of TLS and HTTP/2 takes a few round trips; a slower client wastes a connection.
HANDSHAKE: Final = 10.0
# The caller must receive a sent message within this time; then the connection is closed.
SEND_TIMEOUT: Final = 20.0
# Bytes of a port that callers have not received. gRPC keeps a copy of those that it is sending.
UNSENT_BYTES: Final = 24 * MiB
# Requests that a port reads at the same time: gRPC buffers up to MESSAGE of each.
AWAITED_REQUESTS: Final = 16
# A connection without calls is closed after this time. Clients reconnect automatically.
IDLE_CONNECTION: Final = 300.0

ORIGIN: Final = 255
# The rest of a log's verifier key after its origin: four bytes and an Ed25519 key, or one of ML-DSA-44, in base64.
LOG_KEY: Final = 2_048
NAME: Final = 512
LABEL: Final = 64
STATUS_TEXT: Final = 1_024
TOKEN: Final = 256
# What a node shows to an upstream: registries of clouds give passwords of some two thousand characters.
UPSTREAM_TOKEN: Final = 4_096
PATH: Final = 4_096
LINK: Final = 2_048
# The largest integer that all RFC 8259 readers agree on; indexes and sizes also go into JSON and SQLite.
INTEGER: Final = 2**53 - 1

# Errors are sent in HTTP/2 trailers, at most 8 KiB in gRPC: what (twice), why and hint must fit, in base64.
ERROR_WHAT: Final = 512
ERROR_WHY: Final = 1_024
ERROR_HINT: Final = 512

# Without a deadline a call could hold its stream for ever. Longer work is resumed in another call.
DEADLINE: Final = 3_600.0
# What a call of health or reflection gets that has no deadline.
DEFAULT_DEADLINE: Final = 60.0
# The longest deadline that our clients set; it is shorter because gRPC rounds deadlines up.
LONGEST_CALL: Final = 3_500.0
# Default timeout for an answer, or for the next message of a stream.
CALL_TIMEOUT: Final = 20.0
# Minimum rate of a data stream, in bytes per second. A longer range gets a longer deadline.
SLOWEST: Final = 256 * KiB
# Bytes of an answer whose call may take that long.
LONGEST_ANSWER: Final = int(LONGEST_CALL * SLOWEST)
