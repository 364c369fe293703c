"""What every implementation of a Protocol of ``fastoci.interfaces`` holds to: one suite of tests each.

Subclass a suite in a test file, say how to open the implementation, and let pytest collect the class::

    class TestMyStore(BlobStoreSuite):
        @asynccontextmanager
        async def open(self, directory):
            yield MyStore(directory)

Each test is a plain method that runs an event loop of its own, so no plugin is needed; ``tmp_path`` is the only
fixture. The public names are those of the modules: ``BlobSourceSuite``, ``BlobStoreSuite``, ``ImageCollectionSuite``,
``ImageSinkSuite``, ``ImageSourceSuite``, ``LayerStoreSuite``, ``StoreSessionSuite``.
"""
