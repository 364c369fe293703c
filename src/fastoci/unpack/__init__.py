"""A rootfs on disk: layers become files below one directory."""
