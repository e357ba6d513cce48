"""The C2SP HTTP APIs of transparency logs, witnesses and mirrors, all under `/tlog`: tlog-tiles, tlog-witness,
tlog-mirror.

Logs are those that the node writes or mirrors, and outside logs that the operator added. The prefix of a log is the
SHA-256 of its origin, as tlog-mirror requires; if several keys share an origin, that of the first. Each log also has
the SHA-256 of its verifier key as a prefix. The cosigner of the node is a mirror and signs only logs that it stores.
The plain witness has another key and name, and signs checkpoints that extend those it signed before, without storing
entries.

logs      the known logs, by origin and by prefix
witness   add-checkpoint, and the key of the plain witness
mirror    add-entries
tiles     checkpoints and tiles
"""
