"""Reports as files: what a verdict means to people, a page of HTML, and the signature beside it."""
