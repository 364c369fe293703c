"""The documents of an image: bytes to frozen values and back. No I/O, no clock."""
