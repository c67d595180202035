"""The trainer: a scored batch becomes new weights."""
