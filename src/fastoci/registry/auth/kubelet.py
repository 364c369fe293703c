"""The kubelet's image credential providers: programs that EKS, GKE and AKS nodes have, asked about each image.

Reads the kubelet's own configuration and runs its plugins as it does; answers are kept as long as they say.
Providers that need a pod's service account are passed over: there is no pod here.

Spec: kubelet.config.k8s.io CredentialProviderConfig and credentialprovider.kubelet.k8s.io, each v1, v1beta1, v1alpha1.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from fastoci.discreet import Discreet
from fastoci.durations import duration_s
from fastoci.errors import ConfigError, CredentialError
from fastoci.registry.auth import kubelet_match
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.helper_process import run
from fastoci.registry.config import files

_VERSIONS: Final = ("v1", "v1beta1", "v1alpha1")
_CONFIGS: Final = frozenset(f"kubelet.config.k8s.io/{version}" for version in _VERSIONS)
_PROTOCOLS: Final = frozenset(f"credentialprovider.kubelet.k8s.io/{version}" for version in _VERSIONS)
_TIMEOUT_S: Final = 60.0  # the kubelet's own
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a program in the directory


class Provider(Discreet, frozen=True):
    """One entry of the configuration."""

    hidden: ClassVar = frozenset({"arguments", "environ"})

    name: str
    match_images: tuple[str, ...]
    cache_s: float  # of answers that do not say
    protocol: str
    arguments: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = ()

    def means(self, image: str) -> bool:
        """Whether it is to be asked about ``domain/path``."""
        return any(kubelet_match.matches(pattern, image) for pattern in self.match_images)


class _Answer(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"auth"})

    auth: Mapping[str, Credential]
    kind: str  # what else it holds for: Image, Registry or Global
    cache_s: float


class Providers:
    """The plugins of one job, in the order of the configuration. Used on one loop.

    Args:
        bin_dir: where the plugins are.
        environ: what they see, and more of it by the configuration.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        providers: tuple[Provider, ...],
        bin_dir: Path,
        environ: Mapping[str, str],
        *,
        timeout_s: float = _TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._bin_dir = bin_dir
        self._environ = environ
        self._timeout_s = timeout_s
        self._clock = clock
        self._kept: dict[tuple[str, str, str], tuple[float, Mapping[str, Credential]]] = {}
        self._kinds: dict[str, str] = {}  # what the last answer of a provider held for
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def get(self, image: str) -> Credential | None:
        """The credential for ``domain/path`` of the first provider that has one.

        Raises:
            CredentialError: a plugin is not there, fails, or answers nonsense.
        """
        for provider in self._providers:
            if provider.means(image):
                auth = await self._ask(provider, image)
                key = kubelet_match.best(auth, image)
                if key is not None:
                    return auth[key]
        return None

    async def _ask(self, provider: Provider, image: str) -> Mapping[str, Credential]:
        subjects = _subjects(image)
        # Questions that one answer may settle wait for each other, others do not.
        alike = (provider.name, subjects[self._kinds.get(provider.name, "Registry")])
        async with self._locks.setdefault(alike, asyncio.Lock()):
            for kind, subject in subjects.items():
                until, auth = self._kept.get((provider.name, kind, subject), (0.0, {}))
                if self._clock() < until:
                    return auth
            asked = self._clock()
            answer = await self._run(provider, image)
            self._kinds[provider.name] = answer.kind
            self._kept[provider.name, answer.kind, subjects[answer.kind]] = (asked + answer.cache_s, answer.auth)
            return answer.auth

    async def _run(self, provider: Provider, image: str) -> _Answer:
        request = {"kind": "CredentialProviderRequest", "apiVersion": provider.protocol, "image": image}
        code, output = await run(
            [str(self._bin_dir / provider.name), *provider.arguments],
            json.dumps(request).encode(),
            environ={**self._environ, **dict(provider.environ)},
            timeout_s=self._timeout_s,
        )
        where = f"image credential provider {provider.name}"
        if code:
            raise CredentialError(f"{where}: it failed for {image} with exit status {code}", program=provider.name)
        try:
            return _answer(json.loads(output), provider)
        except (ValueError, RecursionError, KeyError):
            # The cause is dropped: its text may quote the answer.
            problem = f"its answer for {image} is not a CredentialProviderResponse of {provider.protocol}"
            raise CredentialError(f"{where}: {problem}", program=provider.name) from None


def load(
    config: Path, bin_dir: Path, environ: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic
) -> Providers:
    """Read the kubelet's configuration, YAML or JSON.

    Args:
        bin_dir, environ, clock: as for ``Providers``.
    Raises:
        ConfigError: it cannot be read, or is not a CredentialProviderConfig.
    """
    import yaml

    data = files.read(config, "credential provider config")
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        # The cause is dropped: its text quotes the file, which may hold secrets in env.
        raise ConfigError(f"{config}{line}: this credential provider config is not YAML") from None
    if not isinstance(found, dict) or found.get("kind") != "CredentialProviderConfig":
        raise ConfigError(f"{config}: its kind is not CredentialProviderConfig")
    if found.get("apiVersion") not in _CONFIGS:
        raise ConfigError(f"{config}: its apiVersion is not one of {', '.join(sorted(_CONFIGS))}")
    entries = found.get("providers")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{config}: 'providers' is not a list of at least one")
    read = [_provider(entry, f"{config}: providers[{index}]") for index, entry in enumerate(entries)]
    providers = tuple(provider for provider in read if provider is not None)
    if len({provider.name for provider in providers}) != len(providers):
        raise ConfigError(f"{config}: two providers have the same name")
    return Providers(providers, bin_dir, environ, clock=clock)


def _provider(entry: object, where: str) -> Provider | None:
    """One entry; None for a provider that only works for a pod."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is not an object")
    tokens = entry.get("tokenAttributes")
    if isinstance(tokens, dict) and tokens.get("requireServiceAccount"):
        return None
    name, protocol, images = entry.get("name"), entry.get("apiVersion"), entry.get("matchImages")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: 'name' is not the name of a program")
    if protocol not in _PROTOCOLS:
        raise ConfigError(f"{where}: 'apiVersion' is not one of {', '.join(sorted(_PROTOCOLS))}")
    for image in _strings(images, f"{where}: 'matchImages'"):
        try:
            kubelet_match.matches(image, "host/path")
        except ValueError:
            raise ConfigError(f"{where}: 'matchImages' has {image[:80]!r}, which is not a pattern") from None
    if not images:
        raise ConfigError(f"{where}: 'matchImages' is empty")
    try:
        cache_s = duration_s(str(entry.get("defaultCacheDuration")))
    except ValueError:
        raise ConfigError(f"{where}: 'defaultCacheDuration' is not a duration as 12h or 30m0s") from None
    return Provider(
        name, tuple(images), cache_s, protocol, _strings(entry.get("args"), f"{where}: 'args'"), _env(entry, where)
    )


def _strings(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise ConfigError(f"{where} is not a list of strings")
    return tuple(value)


def _env(entry: Mapping[str, object], where: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    variables = entry.get("env") or []
    for each in variables if isinstance(variables, list) else [None]:
        name, value = (each.get("name"), each.get("value")) if isinstance(each, dict) else (None, None)
        if not isinstance(name, str) or not name or "=" in name or not isinstance(value, str):
            raise ConfigError(f"{where}: 'env' is not a list of objects with a name and a value")
        pairs.append((name, value))
    return tuple(pairs)


def _subjects(image: str) -> dict[str, str]:
    """What an answer about ``image`` may hold for, by its cache key type, the narrowest first."""
    return {"Image": image, "Registry": image.partition("/")[0], "Global": ""}


def _answer(found: object, provider: Provider) -> _Answer:
    """Raises ValueError or KeyError for what is not an answer."""
    if (
        not isinstance(found, dict)
        or found["kind"] != "CredentialProviderResponse"
        or found["apiVersion"] != provider.protocol
    ):
        raise ValueError
    kind, life, auth = found["cacheKeyType"], found.get("cacheDuration"), found.get("auth")
    auth = {} if auth is None else auth
    if not isinstance(kind, str) or kind not in _subjects("") or not isinstance(auth, dict):
        raise ValueError
    credentials = {}
    for key, entry in auth.items():
        user, password = (entry.get("username", ""), entry.get("password", "")) if isinstance(entry, dict) else (0, 0)
        if not isinstance(user, str) or not isinstance(password, str):
            raise ValueError
        credentials[key] = Credential(user, password)
    return _Answer(credentials, kind, provider.cache_s if life is None else duration_s(str(life)))
