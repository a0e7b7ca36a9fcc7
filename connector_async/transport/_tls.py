"""TLS contexts, built when the first https connection is made.

Building one reads the certificate store (20 ms); a session must not pay for it at construction, and a thousand
sessions must not keep a thousand stores.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from typing import TypeGuard

import httpx

from connector_async._arguments import kind_of
from connector_async.errors import ConfigurationError

__all__ = ["Certificate", "TLSSettings", "check_context", "is_refusal", "reason_of"]

Certificate = str | Path | tuple[str | Path, str | Path] | tuple[str | Path, str | Path, str]
"""A client certificate: one PEM file, or (certificate, key), or (certificate, key, password of the key)."""


def check_context(ssl_context: object) -> None:
    """An SSLContext, or None.

    Raises:
        ConfigurationError: It is something else, such as the path or the `False` that httpx takes as `verify`.
    """
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise ConfigurationError(
            "ssl_context must be an ssl.SSLContext, such as `ssl.create_default_context(cafile=...)`, "
            f"got {kind_of(ssl_context)}"
        )


def is_refusal(error: BaseException | None) -> TypeGuard[ssl.SSLError]:
    """Whether one side refused the other; a connection that merely broke may be tried again."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def reason_of(error: ssl.SSLError) -> str:
    """Why, in OpenSSL's words."""
    # Python does not know a name for every alert, ALPN's for one; then the text has it, between the file names.
    words = (getattr(error, "verify_message", None), getattr(error, "reason", None), error.strerror)
    return next((word for word in words if word), "handshake failed")


class TLSSettings:
    """How to verify servers, and who we are; the context comes at first use and is kept.

    Args:
        ssl_context: Used as it is; nothing else may be given with it.
        ca_file: Trust these certificates instead of the usual ones.
        cert: A client certificate.
    """

    __slots__ = ("_ca_file", "_cert", "_context")

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | Path | None = None,
        cert: Certificate | None = None,
    ) -> None:
        if ssl_context is not None and (ca_file is not None or cert is not None):
            raise ConfigurationError("give either ssl_context, or ca_file and cert, not both")
        check_context(ssl_context)
        parts = cert if isinstance(cert, tuple) and len(cert) in (2, 3) else (cert,)
        if not all(part is None or isinstance(part, str | Path) for part in (ca_file, *parts)):
            raise ConfigurationError("ca_file must be a path; cert a path, (path, path) or (path, path, password)")
        self._context = ssl_context
        self._ca_file = ca_file
        self._cert = cert

    @property
    def context(self) -> ssl.SSLContext:
        """The context.

        Raises:
            ConfigurationError: A certificate file is missing or unreadable.
        """
        if self._context is None:
            self._context = _shared() if self._ca_file is None and self._cert is None else self._build()
        return self._context

    def _build(self) -> ssl.SSLContext:
        try:
            context = _fresh() if self._ca_file is None else ssl.create_default_context(cafile=self._ca_file)
            if isinstance(self._cert, tuple):
                certificate, key, *password = self._cert
                context.load_cert_chain(certificate, key, str(password[0]) if password else None)
            elif self._cert is not None:
                context.load_cert_chain(self._cert)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(f"cannot read the certificates: {error}") from error
        context.set_alpn_protocols(["http/1.1"])
        return context


@cache
def _shared() -> ssl.SSLContext:
    context = _fresh()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _fresh() -> ssl.SSLContext:
    # httpx's choice of store (certifi, SSL_CERT_FILE, SSL_CERT_DIR): one machine, one answer to "whom do we trust".
    return httpx.create_ssl_context()
