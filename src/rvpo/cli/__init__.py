"""The command line: `rvpo COMMAND`, one file per command."""
