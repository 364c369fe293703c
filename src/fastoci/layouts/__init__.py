"""Images at rest outside the store: one kind of place a module."""
