"""Files whose bytes the kernel holds against a hash tree at each read: fs-verity and dm-verity."""
