"""Supervised steps on checked traces, so that a model finds the form of thinking."""
