"""Engines: problem to completion; they take new weights in flight."""
