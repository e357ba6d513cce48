"""One kind of signed claim a file: what it says, how it is encoded, what makes it refused."""
