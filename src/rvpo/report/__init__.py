"""One self-contained HTML page from the logs of `rvpo train`: figures, tables, sentences, answers."""
