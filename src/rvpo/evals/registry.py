"""What inspect finds of this package by its entry point: tasks `rvpo/NAME`, models `rvpo/` and `rvpo-server/`."""

from rvpo.evals.providers import LocalAPI, ServerAPI
from rvpo.evals.tasks import bfcl, gpqa, healthbench, ifeval, rlla

__all__ = ["LocalAPI", "ServerAPI", "bfcl", "gpqa", "healthbench", "ifeval", "rlla"]
