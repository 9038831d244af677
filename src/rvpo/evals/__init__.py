"""Evaluations of trained models, and the statistics to compare them by."""
