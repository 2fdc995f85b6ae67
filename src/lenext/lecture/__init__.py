"""The lecture, claim by claim: what the slides say, put to the test.

One small file per claim; each says how it is judged before it is tried. Nothing is trained outside `lenext.run` and
nothing counted outside `lenext.costing`.
"""

from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.course import CLAIMS, Status, claim, put_to_the_test, status

__all__ = ["CLAIMS", "Claim", "Finding", "Measure", "Status", "Table", "claim", "put_to_the_test", "status"]
