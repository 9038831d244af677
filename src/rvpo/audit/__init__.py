"""Which reward is at risk of neglect, dead, noisy or in conflict, from the rewards that a run has logged.

from rvpo.audit import audit_log

audit_log("output")                                        # a TRL run with log_completions=True
audit_log("scores.csv", group="prompt", rewards=["a", "b"]).headline
"""

from rvpo.audit.analysis import EXAMPLE, REAL_EXAMPLE, audit_groups, audit_log
from rvpo.audit.groups import Groups
from rvpo.audit.page import audit_page
from rvpo.audit.result import AuditComparison, AuditResult, compare

__all__ = [
    "EXAMPLE",
    "REAL_EXAMPLE",
    "AuditComparison",
    "AuditResult",
    "Groups",
    "audit_groups",
    "audit_log",
    "audit_page",
    "compare",
]
