"""Lists of images: what others write down, as requests. Documents only: no I/O, no registry."""
