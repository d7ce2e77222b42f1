"""Which cluster a kubeconfig means, and the credentials for it."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra.local.adapters.provider_base import ProviderError


@dataclass(frozen=True)
class Cluster:
    """How to reach an API server.

    Args:
        server: its URL.
        ssl_context: trust and client certificate.
        token: bearer token; empty where a certificate serves.
        namespace: the context's namespace; `default` where it names none.
        text: the kubeconfig itself, for helm; the context is made its current one.
    """

    server: str
    ssl_context: ssl.SSLContext = field(repr=False)
    token: str = field(repr=False)
    namespace: str
    text: str = field(repr=False)


def load_text(path_or_text: str | None, folders: tuple[Path, ...]) -> str:
    """The kubeconfig's text.

    Args:
        path_or_text: a path or the content; None means `KUBECONFIG`, else `~/.kube/config`.
        folders: where a relative path is looked up, in this order.
    """
    given = path_or_text or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if "\n" in given or given.lstrip().startswith("{"):
        return given
    tried = [folder / Path(given).expanduser() for folder in folders]
    for path in tried:
        if path.exists():
            return path.read_text()
    raise ProviderError(
        f"kubeconfig {given!r} does not exist (looked for {', '.join(map(str, tried))})"
    )


def parse(text: str, context_name: str | None = None) -> Cluster:
    """The cluster of the named context, or of the current one.

    Raises:
        ProviderError: the kubeconfig lacks something or wants an authentication not known here.
    """
    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        raise ProviderError("kubeconfig is not a YAML mapping")
    name = context_name or config.get("current-context") or ""
    context = _named(config, "contexts", "context", name)
    cluster = _named(config, "clusters", "cluster", context.get("cluster", ""))
    user = _named(config, "users", "user", context.get("user", ""))
    for unknown in ("exec", "auth-provider", "username"):
        if user.get(unknown):
            raise ProviderError(
                f"kubeconfig user {context.get('user')!r} wants {unknown!r} authentication, which "
                "the embedded environment's kubernetes provider does not know; use a client "
                "certificate or a token"
            )
    return Cluster(
        server=str(cluster["server"]).rstrip("/"),
        ssl_context=_ssl_context(cluster, user),
        token=_token(user),
        namespace=context.get("namespace") or "default",
        text=yaml.safe_dump({**config, "current-context": name}),
    )


def _named(config: Mapping[str, Any], section: str, item: str, name: str) -> dict[str, Any]:
    entries = config.get(section) or []
    for entry in entries:
        if entry.get("name") == name:
            return entry.get(item) or {}
    known = ", ".join(repr(entry.get("name")) for entry in entries) or "none"
    raise ProviderError(f"kubeconfig has no {item} {name!r}; it has {known}")


def _token(user: Mapping[str, Any]) -> str:
    if path := user.get("tokenFile"):
        return Path(path).read_text().strip()
    return user.get("token") or ""


def _ssl_context(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority = _pem(cluster, "certificate-authority")
    if authority:
        context = ssl.create_default_context(cadata=authority)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    if certificate and key:
        with _private_file(certificate + "\n" + key) as path:
            context.load_cert_chain(path)
    return context


def _pem(section: Mapping[str, Any], name: str) -> str:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data).decode()
    path = section.get(name)
    return Path(path).read_text() if path else ""


@contextmanager
def _private_file(text: str) -> Iterator[str]:
    # The ssl module reads a key from a file only.
    with tempfile.NamedTemporaryFile("w", prefix="voicemesh-") as file:
        file.write(text)
        file.flush()
        yield file.name
