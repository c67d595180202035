"""Magistral's reward (arXiv 2506.10910, section 2.2), one part a file; `total.Scorer` puts them together."""
