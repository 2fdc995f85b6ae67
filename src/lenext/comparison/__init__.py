"""Many rungs compared: what each gets of the time, how they do, and which is worth its cost."""

from lenext.comparison.course import Comparison, compare, resume

__all__ = ["Comparison", "compare", "resume"]
