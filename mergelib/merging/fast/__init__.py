"""The common merge methods at the speed of memory, written into a resident model in place.

What does not depend on the genome (ranks, uniform numbers, norms) is computed once and kept.
"""
