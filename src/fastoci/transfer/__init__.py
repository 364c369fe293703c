"""The engine: plans, schedules and runs jobs over the floors below."""
