"""Prefect tasks: a cache key, limits and one call into mergelib each."""
