"""The method: merging, answering, estimating, evolving. Knows no orchestrator."""
