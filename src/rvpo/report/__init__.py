"""One self-contained HTML page from the runs of a suite or of `rvpo train`: figures, tables, sentences, answers."""
