"""Public keys out of PEM, for the algorithms that cosign signs with: ECDSA and RSA (PKCS #1 v1.5) by SHA-256, Ed25519.

The one place that uses ``cryptography``, which is imported when a policy demands a signature and not before.

Spec: RFC 5280 (SubjectPublicKeyInfo), RFC 7468 (PEM), RFC 8017 8.2, RFC 8032; FIPS 186-5.
"""

from __future__ import annotations

from collections.abc import Callable

from fastoci.errors import UnsupportedError

Verify = Callable[[bytes, bytes], bool]  # of data and a signature


def load(pem: bytes) -> Verify:
    """What tells whether the owner of a public key has signed bytes.

    Raises:
        UnsupportedError: ``cryptography`` is not installed; or it is a key of another algorithm.
        ValueError: it is not a public key.
    """
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    except ImportError as error:
        text = "signatures cannot be verified here without the package cryptography: pip install 'fastoci[trust]'"
        raise UnsupportedError(text) from error

    def holds(check: Callable[[], None]) -> bool:
        try:
            check()
        except InvalidSignature:
            return False
        return True

    try:
        key = serialization.load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise UnsupportedError(f"a key that cannot be used here: {error}") from error
    sha256 = hashes.SHA256()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return lambda data, made: holds(lambda: key.verify(made, data, ec.ECDSA(sha256)))
    if isinstance(key, rsa.RSAPublicKey):
        return lambda data, made: holds(lambda: key.verify(made, data, padding.PKCS1v15(), sha256))
    if isinstance(key, ed25519.Ed25519PublicKey):
        return lambda data, made: holds(lambda: key.verify(made, data))
    raise UnsupportedError(f"a key of another algorithm than ECDSA, RSA and Ed25519: {type(key).__name__}")
