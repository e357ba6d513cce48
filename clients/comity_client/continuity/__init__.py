"""Continuity of services for one user: plans, their checks, drills and what drills report."""
