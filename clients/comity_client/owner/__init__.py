"""What this user decided and remembers: pinned federations, publishers, policies, what was seen of logs."""
