"""A throw-away certificate authority for tests of TLS."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
import tempfile
from pathlib import Path

import trustme

__all__ = ["Authority", "authority"]


class Authority:
    """Issues certificates and the contexts around them."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self._ca.cert_pem.bytes()

    def server_context(self, *names: str, expired: bool = False, asks_for_client: bool = False) -> ssl.SSLContext:
        """For a server that calls itself so."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        expiry = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if expired else None
        self._ca.issue_cert(*names, not_after=expiry).configure_cert(context)
        if asks_for_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self._ca.configure_trust(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts this authority, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context

    def ca_file(self) -> Path:
        """The authority's certificate as a file."""
        return self._write("ca.pem", self.pem)

    def server_file(self, name: str) -> Path:
        """The key and certificate of a server that calls itself so, in one file."""
        issued = self._ca.issue_cert(name)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return self._write(f"{name}.pem", issued.private_key_pem.bytes() + chain)

    def client_files(self) -> tuple[Path, Path, Path]:
        """A client certificate: both in one file, the certificate, its key."""
        issued = self._ca.issue_cert("client.example")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        key = issued.private_key_pem.bytes()
        return self._write("both.pem", key + chain), self._write("chain.pem", chain), self._write("key.pem", key)

    def _write(self, name: str, content: bytes) -> Path:
        path = _directory() / name
        path.write_bytes(content)
        return path


@functools.cache
def authority() -> Authority:
    """The one that tests trust; making one takes long enough to share it."""
    return Authority()


@functools.cache
def _directory() -> Path:
    # Removed with the process: the object keeps the directory.
    _directory.holder = tempfile.TemporaryDirectory()  # type: ignore[attr-defined]
    return Path(_directory.holder.name)  # type: ignore[attr-defined]
