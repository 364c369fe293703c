"""The shared disk: verified blobs, references, and index.json for other tools. ``docs/store-format.md`` is its law."""
