"""RVPO inside the trainers that people run, through their own hooks."""
