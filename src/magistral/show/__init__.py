"""Reading a run's files: the summary in the terminal and the HTML report."""
