"""Rubrics and the judge: criteria, verdicts, and the client that asks for them."""
