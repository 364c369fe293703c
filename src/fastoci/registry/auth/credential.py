"""One credential as a value. Secrets appear in no repr; where it is from and who may get it is not known here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credential:
    """What to log in with: a name and password, an OAuth2 refresh token, or a bearer token of the registry's own."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
