"""One request or blob over its candidates: retries, ranges, bodies."""
