"""The shared disk: verified blobs, references and the view for other tools. ``docs/store-format.md`` is its law."""
