"""Compute offers at a node: those of others, read and checked as their logs are mirrored; and those of its own, granted
by the one writer of its log.

register   what all logs held here say of offers, with the faults of their chains
ours       what the node's own log says, inside the transaction that appends to it
allocator  what an operator does: post, approve, reject, redeem, release, answer
clock      what happens by itself: acceptances and returns are recorded, grants lapse
lines      statements of the other side: found in any log, proven, carried into this one
counter    who may have a request or an acceptance logged here and is no operator
search     which offers and grants match
accuser    chains at fault, said aloud
"""
