"""The reasoning server: requests of several dialects in, one stream of events inside, thinking and answer apart."""
