"""Commands of the laboratory, which `rvpo` finds by the entry points of `lab/pyproject.toml`."""
