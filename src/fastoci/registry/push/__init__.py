"""Images on their way into a registry."""
