"""The requirements of ``policy.json`` that have fields, read into values. Most policies have none. Pure.

Spec: containers-policy.json(5), ``signedBy`` and ``sigstoreSigned``.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET
from msgspec import UnsetType as Unset

from fastoci.errors import ConfigError
from fastoci.trust.identity import SignedIdentity, name_problem, prefix_problem
from fastoci.trust.requirements import Keys, SignedBy, SigstoreSigned

T = TypeVar("T")

_KEY_TYPES: Final = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")
_SIGNER: Final = ("key_path", "key_paths", "key_data", "key_datas", "fulcio", "pki")
_REKOR: Final = ("rekor_public_key_path", "rekor_public_key_paths", "rekor_public_key_data", "rekor_public_key_datas")


class _Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    type: str
    docker_reference: str | Unset = UNSET
    docker_repository: str | Unset = UNSET
    prefix: str | Unset = UNSET
    signed_prefix: str | Unset = UNSET


class _SignedBy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    type: str
    key_type: str
    key_path: str | Unset = UNSET
    key_paths: tuple[str, ...] | Unset = UNSET
    key_data: bytes | Unset = UNSET
    signed_identity: dict[str, Any] | Unset = UNSET


class _Fulcio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    oidc_issuer: str = msgspec.field(name="oidcIssuer")
    subject_email: str = msgspec.field(name="subjectEmail")
    ca_path: str | Unset = msgspec.field(name="caPath", default=UNSET)
    ca_data: bytes | Unset = msgspec.field(name="caData", default=UNSET)


class _Pki(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    ca_roots_path: str | Unset = UNSET
    ca_roots_data: bytes | Unset = UNSET
    ca_intermediates_path: str | Unset = UNSET
    ca_intermediates_data: bytes | Unset = UNSET
    subject_email: str | Unset = UNSET
    subject_hostname: str | Unset = UNSET


class _SigstoreSigned(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    type: str
    key_path: str | Unset = UNSET
    key_paths: tuple[str, ...] | Unset = UNSET
    key_data: bytes | Unset = UNSET
    key_datas: tuple[bytes, ...] | Unset = UNSET
    fulcio: _Fulcio | Unset = UNSET
    pki: _Pki | Unset = UNSET
    rekor_public_key_path: str | Unset = UNSET
    rekor_public_key_paths: tuple[str, ...] | Unset = UNSET
    rekor_public_key_data: bytes | Unset = UNSET
    rekor_public_key_datas: tuple[bytes, ...] | Unset = UNSET
    signed_identity: dict[str, Any] | Unset = UNSET


def signed_by(value: dict[str, Any], where: str) -> SignedBy:
    """A requirement of that type; ``where`` says where it is.

    Raises:
        ConfigError: a field is not what it should be.
    """
    form = _read(value, _SignedBy, where)
    if form.key_type not in _KEY_TYPES:
        raise ConfigError(f"{where}.keyType: {form.key_type[:100]!r} is none of {', '.join(_KEY_TYPES)}")
    _exactly_one(form, ("key_path", "key_paths", "key_data"), where)
    keys = _keys(form, where)
    assert keys is not None
    return SignedBy(form.key_type, keys, _identity(form.signed_identity, where))


def sigstore_signed(value: dict[str, Any], where: str) -> SigstoreSigned:
    """A requirement of that type; ``where`` says where it is.

    Raises:
        ConfigError: a field is not what it should be, or two exclude each other.
    """
    form = _read(value, _SigstoreSigned, where)
    _exactly_one(form, _SIGNER, where)
    logs = [name for name in _REKOR if getattr(form, name) is not UNSET]
    if len(logs) > 1:
        raise ConfigError(f"{where}: {' and '.join(map(_camel, logs))} exclude each other")
    if form.fulcio is not UNSET:
        _exactly_one(form.fulcio, ("ca_path", "ca_data"), f"{where}.fulcio")
        if not logs:
            raise ConfigError(f"{where}: fulcio needs one of {', '.join(map(_camel, _REKOR))}")
    if form.pki is not UNSET:
        _exactly_one(form.pki, ("ca_roots_path", "ca_roots_data"), f"{where}.pki")
        if logs:
            raise ConfigError(f"{where}: pki and {_camel(logs[0])} exclude each other")
    unverifiable = "fulcio" if form.fulcio is not UNSET else "pki" if form.pki is not UNSET else _camel("".join(logs))
    return SigstoreSigned(_keys(form, where), unverifiable, _identity(form.signed_identity, where))


def _keys(form: _SignedBy | _SigstoreSigned, where: str) -> Keys | None:
    """The keys of a requirement that has some."""
    for name in ("key_path", "key_paths", "key_data", "key_datas"):
        given = getattr(form, name, UNSET)
        if given is UNSET:
            continue
        values = given if isinstance(given, tuple) else (given,)
        field = f"{where}.{_camel(name)}"
        if not all(values) or not values:
            raise ConfigError(f"{field}: it is empty")
        return Keys(field, data=values) if "data" in name else Keys(field, paths=values)
    return None


def _exactly_one(form: object, names: tuple[str, ...], where: str) -> None:
    given = [name for name in names if getattr(form, name) is not UNSET]
    if len(given) != 1:
        more = f", not {' and '.join(map(_camel, given))}" if given else ""
        raise ConfigError(f"{where}: expected one of {', '.join(map(_camel, names))}{more}")


_FIELDS: Final = {
    "matchExact": (),
    "matchRepoDigestOrExact": (),
    "matchRepository": (),
    "exactReference": ("docker_reference",),
    "exactRepository": ("docker_repository",),
    "remapIdentity": ("prefix", "signed_prefix"),
}


def _identity(value: dict[str, Any] | Unset, where: str) -> SignedIdentity:
    if value is UNSET:
        return SignedIdentity()
    where = f"{where}.signedIdentity"
    form = _read(value, _Identity, where)
    if form.type not in _FIELDS:
        raise ConfigError(f"{where}.type: {form.type[:100]!r} is none of {', '.join(_FIELDS)}")
    wanted = _FIELDS[form.type]
    given = {name for name in _Identity.__struct_fields__[1:] if getattr(form, name) is not UNSET}
    if given != set(wanted):
        fields = " and ".join(map(_camel, wanted)) or "no other field"
        raise ConfigError(f"{where}: {form.type} takes {fields}")
    values = [str(getattr(form, name)) for name in wanted]
    for name, text in zip(wanted, values, strict=True):
        exact = form.type == "exactReference"
        problem = prefix_problem(text) if form.type == "remapIdentity" else name_problem(text, exact=exact)
        if problem:
            raise ConfigError(f"{where}.{_camel(name)}: {problem}")
    return msgspec.convert(
        dict(zip(("kind", "name", "signed_prefix"), (form.type, *values), strict=False)), SignedIdentity
    )


def _read(value: object, form: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise ConfigError(f"{where}{path.rstrip('`')}: {text}") from error


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
