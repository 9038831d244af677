"""Which reward will be neglected, dead, noisy or in conflict, from the rewards that a run has logged.

from rvpo.audit import audit_log

audit_log("output")                                        # a TRL run with log_completions=True
audit_log("scores.csv", group="prompt", rewards=["a", "b"]).headline
"""

from rvpo.audit.audit import audit_groups
from rvpo.audit.compare import Comparison, compare
from rvpo.audit.files import EXAMPLE, audit_log
from rvpo.audit.groups import Groups
from rvpo.audit.result import AuditResult

__all__ = ["EXAMPLE", "AuditResult", "Comparison", "Groups", "audit_groups", "audit_log", "compare"]
