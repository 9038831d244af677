"""Tasks and policies that need no download: a tiny model, prompts from a seed, exact graders."""
