"""Where an image may be asked for: mirrors, certificates, other tools' configuration files."""
