"""The rows of a verdict: one function per row returns its state, summary and facts. The numbers are the steps of
`verify`, which calls the functions in order."""
