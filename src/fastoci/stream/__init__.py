"""What happens to buffers on worker threads: held against digests, inflated. No I/O."""
