"""Replication from other nodes. Everything is pulled; nothing is pushed.

link                 a connection to one peer; the wait for first answers before the node signs
mirror               mirroring of logs, their quotas, and recovery of the own log from peers
side_objects         fetching of side objects before a log advances, and of missing ones later
cosigner             cosignatures for mirrored logs, and who is told of them
misbehaviour         proofs that a log showed two histories, and the logs frozen for it
replicas             copies of artifacts, one by one, the loops for them, and what is known of them
wanted               which publications are wanted: they are read, decided and queued
copy_admission       how much of the disk the copies of each member may use
copy_charges         what copies are charged to: members, and quotas of mirror rules
copy_limits          pauses and pace of copies
files                file transfers
artifacts, fair_queue       the queue of copies; fair scheduling
held_copies          what is here and whole; claims of copies
on_demand            files fetched because a reader asks for them
bundles              what a bundle has, taken as from a peer
peers, setup         the loops for each peer; construction of all parts
"""
