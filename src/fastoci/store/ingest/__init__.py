"""A blob on its way into the store: data, checkpoints, durability, who waits for it."""
