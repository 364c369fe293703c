"""Sets of images that share layers, built once and kept in the work directory; and the command that brings one.

The same numbers give the same images.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import data
from benchmarks.data import Sample
from fastoci.image.platform import Platform
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, Seeded, from_seed

LAYERS = 10  # of an image of ``many``
_BASES = 5  # of the images of ``related``
_IMAGES = 30
_COMPRESSED = 0.66  # of the bytes of a layer from a seed
_FILE = 40_000  # bytes, on average


def related(work: Path, *, scale: float) -> list[Sample]:
    """Thirty images on five bases of two to four layers of 10 to 40 MB, each with two of 1 to 8 MB: 600 MB in all.

    Below a tenth of that there are fewer images, too.
    """

    def build(parts: Path) -> dict[str, Image]:
        rng = random.Random(30)

        def layers(count: int, least: float, most: float) -> list[Layer]:
            return [_layer(rng, scale * rng.uniform(least, most), parts) for _ in range(count)]

        bases = [layers(2 + number % 3, 10e6, 40e6) for number in range(_BASES)]
        return {
            f"team{number % 7}/app{number}": Image.build(
                [*bases[number % _BASES], *layers(2, 1e6, 8e6)], platform=Platform.host()
            )
            for number in range(min(_IMAGES, max(4, round(10 * _IMAGES * scale))))
        }

    return data.samples(data.kept(work, f"related-{scale:g}", build))


def _layer(rng: random.Random, size: float, parts: Path) -> Layer:
    plain = round(size / _COMPRESSED)
    files = max(1, plain // _FILE)
    return Layer.build(from_seed(rng.getrandbits(32), files=files, size=plain // files), into=parts)


def many(work: Path, *, images: int, layers: int = LAYERS) -> list[Sample]:
    """Images of so many layers of 6 kB: two layers for each image, of which it has its own and those of others."""

    def build(parts: Path) -> dict[str, Image]:
        pool = [Layer.build([Entry("file", data=Seeded(seed, 6000, 0.0))]) for seed in range(2 * images)]
        built = {}
        for number in range(images):
            others = ((17 * number + 31 * step) % len(pool) for step in range(len(pool)))
            chosen = list(dict.fromkeys((2 * number, 2 * number + 1, *others)))[:layers]
            built[f"team{number % 40}/app{number}"] = Image.build(
                [pool[index] for index in chosen], platform=Platform.host(), command=[str(number)]
            )
        return built

    return data.samples(data.kept(work, f"many-{images}-{layers}", build))


def unique(samples: Iterable[Sample]) -> dict[str, int]:
    """Every manifest and blob of all images, and its size."""
    paths = {path for sample in samples for path in (sample.manifest, *sample.blobs)}
    return {path.name: path.stat().st_size for path in paths}


def lacking(samples: Iterable[Sample], store: Path) -> list[str]:
    """The manifests and blobs that a store does not have with their size."""
    blobs = store / "blobs" / "sha256"
    held = {path.name: path.stat().st_size for path in blobs.iterdir()}
    return [name for name, size in unique(samples).items() if held.get(name) != size]


def references(samples: Iterable[Sample], address: str) -> list[str]:
    """The names of the images at a server."""
    return [f"{address}/{sample.name}:t" for sample in samples]


def prefetch(asked: Sequence[str], store: Path) -> list[str]:
    """The command that brings all into a store."""
    return [sys.executable, "-m", "fastoci", "prefetch", *asked, "--store", str(store), "--progress", "none"]
