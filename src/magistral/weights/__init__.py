"""Tensors by name, in every file format."""
