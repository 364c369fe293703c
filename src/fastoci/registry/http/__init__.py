"""HTTP as a registry speaks it: connections, TLS, proxies, headers, what servers are like."""

from fastoci.registry.http import aiohttp_import as aiohttp_import  # before all others, which import aiohttp
