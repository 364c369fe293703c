"""The images that scenarios serve: small, the same each time, and with one layer that is big enough to be cut.

Knows no faults.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, from_seed

_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def build(size: int, count: int) -> tuple[Image, ...]:
    """``count`` images of a small layer and one of about ``size`` bytes, which differ in their configs."""
    layers = [
        Layer.build([Entry("etc/issue", data=b"a fault is a fact\n")]),
        Layer.build(from_seed(7, files=4, size=max(1, size // 4), compressibility=0.0)),
    ]
    return tuple(Image.build(layers, command=["/bin/true", str(number)]) for number in range(count))


def with_urls(image: Image, urls: Sequence[str]) -> Image:
    """The image with a last layer that is to be had elsewhere, as descriptors of foreign layers say."""
    document = json.loads(image.manifest)
    document["layers"][-1].update(mediaType=_FOREIGN, urls=list(urls))
    return replace(image, manifest=json.dumps(document).encode())
