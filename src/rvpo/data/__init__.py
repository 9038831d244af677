"""Rubric data sets as canonical rows: a reader for each data set, nothing dropped without being counted."""

from rvpo.data.load import LoadedRows, load_rubric_rows
from rvpo.data.rows import RubricRow, write_rows

__all__ = ["LoadedRows", "RubricRow", "load_rubric_rows", "write_rows"]
