"""A tiny family of language models, built here, whose merges do what none of them can."""
