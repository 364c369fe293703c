"""The program: one file a command, and what commands share. Knows the public names of fastoci only."""
