"""The asynchronous RL loop; `loop.py` is one page, read it first."""
