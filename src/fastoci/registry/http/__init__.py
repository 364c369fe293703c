"""HTTP as a registry speaks it: connections, TLS, proxies, headers, what servers are like."""
