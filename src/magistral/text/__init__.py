"""Text to tokens and back; thinking and summary, whole and streamed."""
