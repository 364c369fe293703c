"""A containerd for tests, without the rights it needs and without its own timing: a directory, and some dicts."""

from fastoci.testing.containerd.fake import FakeContainerd

__all__ = ["FakeContainerd"]
