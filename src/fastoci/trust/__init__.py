"""Whether an image may be had: the machine's policy, and the signatures that it demands."""
