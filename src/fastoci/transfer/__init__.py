"""Machinery without verbs: pipelines, threads, buffers, one flight a digest, unpacking."""
