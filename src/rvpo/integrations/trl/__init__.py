"""RVPO in TRL: `trainer` is the method, `run` what `rvpo train` does around it."""
