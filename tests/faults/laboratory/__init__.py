"""The fault laboratory: schedules of faults, what happened under them, and what that cost.

A schedule says what breaks when. It is played on a fleet in virtual time (`simulation`) or on real
processes (`processes`, `proxy`). Either writes a record of everything that was sent and applied, and the checker
answers from record and log alone: lost, unexpected, recovered. No part of it knows how the product keeps
its promises.
"""
