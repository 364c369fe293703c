"""One credential as a value. Secrets appear in no repr; where it is from and who may get it is not known here."""

from __future__ import annotations

from typing import ClassVar

from fastoci.discreet import Discreet


class Credential(Discreet, frozen=True):
    """What to log in with: a name and password, an OAuth2 refresh token, or a bearer token of the registry's own."""

    hidden: ClassVar = frozenset({"password", "identity_token", "registry_token"})

    username: str
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
