from __future__ import annotations

import pytest

from fastoci.image.reference import Reference
from fastoci.registry.endpoints import Mirrors, endpoints


@pytest.mark.parametrize(
    ("name", "base", "path", "domain"),
    [
        ("redis", "https://registry-1.docker.io/v2", "library/redis", "docker.io"),
        ("r.test/a/b", "https://r.test/v2", "a/b", "r.test"),
        ("r.test:80/a", "https://r.test:80/v2", "a", "r.test:80"),
        ("localhost/a", "http://localhost/v2", "a", "localhost"),
        ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2", "a", "127.0.0.1:5000"),
        ("127.0.0.1:443/a", "https://127.0.0.1/v2", "a", "127.0.0.1:443"),
        ("[::1]:5000/a", "http://[::1]:5000/v2", "a", "[::1]:5000"),
    ],
)
def test_without_configuration_the_registry_itself_is_asked(name: str, base: str, path: str, domain: str) -> None:
    (endpoint,) = endpoints(Reference.parse(name), Mirrors(), tls_verify=True)
    assert (str(endpoint.base), endpoint.path, endpoint.domain) == (base, path, domain)
    assert endpoint.origin
    assert endpoint.resolve
    assert endpoint.pull
    assert endpoint.tls.verify
    assert not endpoint.plain_too


@pytest.mark.parametrize(
    ("name", "plain_too"), [("r.test/a", True), ("127.0.0.1:443/a", False), ("localhost/a", False)]
)
def test_without_verification_plain_http_is_the_second_try(name: str, plain_too: bool) -> None:
    (endpoint,) = endpoints(Reference.parse(name), Mirrors(), tls_verify=False)
    assert endpoint.plain_too == plain_too
    assert not endpoint.tls.verify
