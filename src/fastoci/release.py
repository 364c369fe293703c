"""Which release this is: ``pyproject.toml`` reads it here, and the program need not ask the installer."""

VERSION = "0.1.0"
