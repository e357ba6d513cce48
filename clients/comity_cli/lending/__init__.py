"""What the commands about offers and grants share: where lines come from, who speaks, and how chains are shown."""
