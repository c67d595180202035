"""The native engine: torch, continuous batching, weights that change between two decode steps."""
