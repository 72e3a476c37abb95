"""Symmetric operators of curvature: one object a file, all known to estimators by products only."""
