"""The spec: a paper's method as plain data. Nothing here imports torch; only `build` constructs components."""
