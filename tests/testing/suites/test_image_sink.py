"""The suite of ``ImageSink`` over the OCI layout, as an engine makes one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fastoci.image import index
from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import REF_NAME
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import ImageSink
from fastoci.layouts.oci_layout import OciLayout
from fastoci.testing.suites.image_sink import ImageSinkSuite
from support.streaming import OwnStreams, run_hashing


class TestOciLayout(ImageSinkSuite):
    def open(self, directory: Path) -> ImageSink:
        return OciLayout(directory, run_hashing, OwnStreams())

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        entries = index.parse((directory / "index.json").read_bytes(), OCI_INDEX).manifests
        return {entry.annotations[REF_NAME]: entry for entry in entries}

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        hidden = [name for name in os.listdir(directory / "blobs" / "sha256") if name.startswith(".")]
        assert not hidden, f"unfinished files are left: {hidden}"
        with suppress(FileNotFoundError):
            return (directory / "blobs" / blob.digest.algorithm / blob.digest.hex).read_bytes()
        return None
