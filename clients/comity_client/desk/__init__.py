"""The signing desk: a member's governance keys, what each of them has signed, and how several of them sign as one.

    votes      the vote state of one key, in a file beside it
    keys       a key that signs: in a file, or in a token, with its vote state
    token      the classical half of a key inside a PKCS#11 token
    seat_keys  all the keys that decide about a seat, as they are made
    ceremony   m of k by one carried file
    signing    a key put to a ceremony: the votes are asked first

No network here, and nothing that a node runs. What to sign, and why, is decided in the room `governance`.
"""
