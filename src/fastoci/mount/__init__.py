"""Images as mounted file systems: by the kernel where it can, else by programs of FUSE. docs/mounting.md."""
