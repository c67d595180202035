"""One file a verb; each wires the rooms together."""
