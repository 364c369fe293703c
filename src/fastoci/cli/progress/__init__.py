"""What a job is at, shown on stderr: its state, bars, lines, JSON."""
