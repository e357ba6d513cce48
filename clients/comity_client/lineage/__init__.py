"""What an artifact was made from: the graph of claims about it, and edges made again on this machine."""
