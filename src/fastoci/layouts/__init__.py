"""Images at rest outside the store: one form of archive or directory a module."""
