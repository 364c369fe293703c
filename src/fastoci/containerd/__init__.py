"""containerd over its socket: its content store, snapshots and images; and the calls that it makes to plugins."""
