"""Files become layers: what two trees differ in, as a tar. The way back from ``unpack``."""
