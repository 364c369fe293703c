"""What may go, and how it goes beside running jobs."""
