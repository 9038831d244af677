"""The neglect suite: every task, method and seed as a cell that is trained once, in TRL, and kept."""
