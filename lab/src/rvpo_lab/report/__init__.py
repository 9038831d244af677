"""Pages and figures of suites."""
