"""Talking to language models, over HTTP or loaded here: what the judge and the evaluation share."""
