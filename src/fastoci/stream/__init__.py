"""What happens to spans on worker threads: held against digests, inflated. No I/O."""
