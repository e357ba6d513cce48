"""Following the other nodes. Everything is pulled; nothing is ever pushed.

link        a connection to one peer, over whichever of its addresses works
start       what has to be heard from peers before anything is signed
recovery    the own log, brought back to what peers have seen of it
mirror      one log followed from one peer: checked, kept, then cosigned
side_objects, quota   what has to be here before a log advances, and how much of it
cosigner    signing what is kept, never backwards
convictions misbehaviour: found, kept, spread; the logs that are frozen for it
artifacts   copies of artifacts, and the `hold` that says so
peers       the rounds: one supervised loop a peer
"""
