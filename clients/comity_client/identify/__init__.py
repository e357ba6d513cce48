"""What files on this machine are: hashed, looked up at the nodes by prefixes, and proven by manifests and logs."""
