"""Every bound of the wire, with its reason. A peer that exceeds one is refused before memory is spent on it.

Bounds of formats (a line, a tile, a manifest) belong to their formats in comity.trust; those repeated here are what a
message may carry. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from typing import Final

KiB: Final = 1024
MiB: Final = 1024 * KiB

# One message. gRPC's own default, kept on both sides; data travels in streams of chunks well below it.
MESSAGE: Final = 4 * MiB
# One message of a data stream: larger ones measured no faster, smaller ones slower (64 KiB: half the rate).
CHUNK: Final = 1 * MiB
# The least that each message of a data stream holds, but the last: a dribble of bytes is refused.
LEAST_CHUNK: Final = 64 * KiB
# What protobuf may add to the bytes of each message of a stream.
MESSAGE_COST: Final = 64

# One log entry: tlog-tiles stores its length in 16 bits.
LINE: Final = 65_535
# Lines in one batch: with the bound on bytes this matters for tiny lines only.
BATCH_LINES: Final = 4_096
# Entries a GetEntries call may ask for: 256 full tiles; a longer catch-up is several calls and can resume.
ENTRIES_PER_CALL: Final = 65_536
# A note with two cosignatures (3.4 KiB together) of each of 100 members, and room.
NOTE: Final = 512 * KiB
# A note, 64 hashes, and the line's own extra data.
PROOF: Final = 1 * MiB
# RFC 6962 proofs in trees of at most 2**63 leaves.
INCLUSION_HASHES: Final = 64
CONSISTENCY_HASHES: Final = 128

# Answers that grow with the federation: how many items, and how many bytes in all, a client takes.
LOGS: Final = 10_000
CLAIMS: Final = 10_000
RESOLVED: Final = 4_000
PROOFS: Final = 1_000
MISBEHAVIOUR: Final = 10_000
ANSWER: Final = 64 * MiB
MISBEHAVIOUR_PARTS: Final = 16
SEARCH_PAGE: Final = 50

CHARTER_BODY: Final = 4 * MiB
# INTENT, RATIFY and consent lines of several rounds for a federation of a thousand members.
CERTIFICATE_LINES: Final = 16_384
IDENTITY_LINES: Final = 64
# Epochs of one answer; a federation that decides weekly has as many in twenty years.
EPOCHS: Final = 1_000
# What is said about one next epoch: 200 members, each at its node's quota, and those whom they speak of.
PROCEEDINGS: Final = 65_536
PROCEEDINGS_BYTES: Final = 4 * ANSWER
# A card: an inception, rotations, records of a few nodes and their addresses.
ASK_LINES: Final = 32
ASK_BYTES: Final = 256 * KiB
ASKS: Final = 256
CAPABILITIES: Final = 64
# A host name of 253 characters, a port, and room for a proxy's path.
GATEWAY_URL: Final = 512

# A side object or a manifest, as in comity.trust.
OBJECT: Final = 64 * MiB
# 36 bytes a piece of 4 MiB: a blob of 7 TiB.
RECORDS: Final = 64 * MiB
STAT_DIGESTS: Final = 1_000
LOCATIONS: Final = 16
# One Read: long enough to amortise the call, short enough to finish within the longest deadline at 300 KiB/s.
READ: Final = 1024 * MiB

SUBMIT_LINES: Final = 64
SUBMIT_BYTES: Final = 3 * MiB
MISSING: Final = 2_000

# Offers and requests of one answer; the next begins after the last one had.
OFFERS: Final = 1_000
GRANTS: Final = 10_000
JURISDICTIONS: Final = 64
# What is said of one grant beside its chain, as far as it is listed.
SAID: Final = 256
# A record, the line that it answers, and who said that.
ALLOCATED: Final = 8

# An import: terms as somebody wrote them, hosts where files lie, and a few events a second for an hour.
TERMS: Final = 1 * MiB
UPSTREAM_HOSTS: Final = 16
IMPORT_EVENTS: Final = 1_000_000

STATUS_ITEMS: Final = 10_000

# Calls at once on one connection; `guards` bounds them for each peer besides.
STREAMS: Final = 128

# A handshake of TLS and HTTP/2 takes a few round trips; a client that takes longer holds a connection for nothing.
HANDSHAKE: Final = 10.0
# A message that is sent waits this long for the caller to take it; then the connection is closed.
STALL: Final = 20.0
# Requests that are awaited at once at a port: gRPC keeps what came of each, up to MESSAGE.
AWAITED: Final = 16
# A connection without a call. Clients connect again by themselves.
IDLE_CONNECTION: Final = 300.0

ORIGIN: Final = 255
# The rest of a log's verifier key after its origin: four bytes and an Ed25519 key, or one of ML-DSA-44, in base64.
LOG_KEY: Final = 2_048
NAME: Final = 512
WORD: Final = 64
SENTENCE: Final = 1_024
TOKEN: Final = 256
PATH: Final = 4_096
# RFC 8259 readers agree on integers up to here; indexes and sizes also meet JSON and SQLite.
INTEGER: Final = 2**53 - 1

# Errors travel in HTTP/2 trailers, of which gRPC accepts 8 KiB: what (twice), why and hint have to fit, in base64.
ERROR_WHAT: Final = 512
ERROR_WHY: Final = 1_024
ERROR_HINT: Final = 512

# A call without a deadline would hold its stream for ever; one of more than an hour should have been resumed.
DEADLINE: Final = 3_600.0
# The longest that our clients set: gRPC rounds deadlines up on the line.
LONGEST_CALL: Final = 3_500.0
# The wait for an answer, or for the next message of a stream, where the caller says nothing else.
PATIENCE: Final = 20.0
# The slowest data stream worth waiting for, bytes a second: a longer deadline follows from a longer range.
SLOWEST: Final = 256 * KiB
