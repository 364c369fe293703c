"""The read side of a registry over HTTP, for tests and for who serves a store."""
