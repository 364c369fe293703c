"""The suite of ``ImageSource`` over a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastoci.image.reference import Reference
from fastoci.image_interfaces import ImageSource
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry as Client
from fastoci.testing.images import Image, Index
from fastoci.testing.registry import Registry
from fastoci.testing.suites.image_source import ImageSourceSuite


class TestRepository(ImageSourceSuite):
    @asynccontextmanager
    async def open(self, images: Mapping[str, Image | Index]) -> AsyncIterator[tuple[ImageSource, str]]:
        async with Registry() as registry, Client(credentials=Credentials()) as client:
            for tag, image in images.items():
                registry.add_image("team/app", tag, image)
            repository = f"{registry.address}/team/app"
            yield client.repository(Reference.parse(repository)), repository
