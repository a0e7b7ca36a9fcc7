"""Content codings, undone with a bound.

We ask for `identity`; some gateways compress regardless. gzip and deflate are in the standard library and can be
stopped at a size, so they are undone; anything else is refused.
"""

from __future__ import annotations

import zlib

from connector_async.errors import RemoteProtocolError, ResponseTooLarge

__all__ = ["decoded"]

# zlib's own spelling: 16 added to the window size means a gzip wrapper, 32 means gzip or zlib, whichever comes.
_WINDOW = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS | 32}


def decoded(body: bytes, coding: bytes, max_bytes: int) -> bytes:
    """Undo one content coding.

    Raises:
        RemoteProtocolError: The coding is unknown, or the body does not follow it.
        ResponseTooLarge: What comes out exceeds `max_bytes`; no more than that was decoded.
    """
    coding = coding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    window = _WINDOW.get(coding)
    if window is None:
        raise RemoteProtocolError("the answer has a content encoding that was not asked for")
    if not body:
        return body
    decoder = zlib.decompressobj(window)
    try:
        result = decoder.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RemoteProtocolError("the answer's compressed body is corrupt") from error
    if len(result) > max_bytes:
        raise ResponseTooLarge(f"the answer exceeds {max_bytes} bytes once decompressed")
    if not decoder.eof:
        raise RemoteProtocolError("the answer's compressed body is cut short")
    return result
