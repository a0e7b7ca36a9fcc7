"""Files: to and from the storage. No token is sent there; the URL itself is the permission, for about a minute."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from os import PathLike
from typing import Any

import anyio
import httpx

from connector_async.errors import DeadlineExceeded, Landed, NotSent, ResponseTooLarge
from connector_async.exchange.desk import Desk
from connector_async.wire import (
    MAX_FILE_BYTES,
    FileType,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    TransferUrl,
)

__all__ = ["FileDownload", "FileSource", "download", "file_type_of", "read_file", "upload"]

FileSource = bytes | bytearray | memoryview | str | PathLike[str] | AsyncIterable[bytes]
"""The bytes, a path, or an async stream of bytes."""

_TRIES = 3  # URLs asked for: a first one, and two more if it lapses or the storage fails
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", FileType.PNG),
    (b"\xff\xd8\xff", FileType.JPEG),
    (b"GIF87a", FileType.GIF),
    (b"GIF89a", FileType.GIF),
)

_SIGNATURE = re.compile(r"(temp_url_sig=)[^&\s]+")


class _HideSignatures(logging.Filter):
    """httpx logs URLs at INFO, and whoever has a storage URL may use it while it lives."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass, without the signature."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                _SIGNATURE.sub(r"\1…", str(argument)) if isinstance(argument, httpx.URL) else argument
                for argument in record.args
            )
        return True


logging.getLogger("httpx").addFilter(_HideSignatures())

AskUrl = Callable[[GenerateURLForUploadFile | GenerateURLForDownloadFile], Awaitable[TransferUrl]]


async def read_file(source: FileSource) -> bytes:
    """All bytes of a file to send.

    Raises:
        ValueError: It is empty, or larger than the API takes (3 MB).
        OSError: The path cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    elif isinstance(source, AsyncIterable):
        content = await _collect(source)
    else:
        path = anyio.Path(source)
        _check_size((await path.stat()).st_size)
        content = await path.read_bytes()
    _check_size(len(content))
    return content


async def _collect(stream: AsyncIterable[bytes]) -> bytes:
    parts = bytearray()
    async for part in stream:
        parts += part
        _check_size(len(parts) or 1)
    return bytes(parts)


def _check_size(size: int) -> None:
    if not 1 <= size <= MAX_FILE_BYTES:
        raise ValueError(f"a file has 1 to {MAX_FILE_BYTES} bytes (3 MB), this one has {size}")


def file_type_of(content: bytes) -> FileType:
    """The type of an image, from its first bytes.

    Raises:
        ValueError: It is none of those that the API takes.
    """
    for magic, file_type in _MAGIC:
        if content.startswith(magic):
            return file_type
    raise ValueError("the file is no PNG, JPEG or GIF; the API takes no others (or say `file_type=`)")


async def upload(desk: Desk, ask: AskUrl, content: bytes, file_type: str) -> str:
    """Put a file into the storage; asks for a new URL when one lapses.

    Returns:
        The relative path to publish.

    Raises:
        NotSent: The storage does not take it; nothing was published.
    """
    request = GenerateURLForUploadFile(file_size=len(content), file_type=file_type)
    failure: NotSent | None = None
    for _ in range(_TRIES):
        granted = await ask(request)
        url = await _url(desk, granted)
        try:
            response = await desk.client.put(
                url,
                content=content,
                headers={"Content-Type": "application/octet-stream"},
                follow_redirects=False,
                timeout=None,
            )
        except Exception as error:  # noqa: BLE001 - of httpx, or of whatever transport of the user's stands beneath it
            failure = _storage_failed(f"does not answer ({type(error).__name__})")
            failure.__cause__ = error
            continue
        if response.is_success:
            return granted.relative_path
        failure = _storage_failed(f"answers {response.status_code}", status=response.status_code)
        if response.status_code != 401 and response.status_code < 500:
            raise failure
    raise failure or _storage_failed("was not asked")


class FileDownload:
    """A file on its way: iterate over its chunks, or `await read()`."""

    def __init__(self, response: httpx.Response, max_bytes: int, deadline: float = math.inf) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._deadline = deadline

    @property
    def content_type(self) -> str | None:
        """As the storage says."""
        value: str | None = self._response.headers.get("content-type")
        return value

    @property
    def size(self) -> int | None:
        """Bytes, as the storage says; None if it does not."""
        stated = self._response.headers.get("content-length", "")
        return int(stated) if stated.isascii() and stated.isdigit() and len(stated) <= 18 else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The file's bytes, in order.

        Raises:
            ResponseTooLarge: It exceeds the cap.
            NotSent: The storage broke off; ask again.
            DeadlineExceeded: It took too long.
        """
        received = 0
        chunks = self._response.aiter_bytes()
        while True:
            with _until(self._deadline):
                try:
                    chunk = await anext(chunks, None)
                except Exception as error:
                    raise _storage_failed(f"broke off after {received} bytes ({type(error).__name__})") from error
            if chunk is None:
                return
            received += len(chunk)
            if received > self._max_bytes:
                raise ResponseTooLarge(f"the file exceeds {self._max_bytes} bytes")
            yield chunk

    async def read(self) -> bytes:
        """All of it; errors as iterating."""
        return b"".join([chunk async for chunk in self])


@asynccontextmanager
async def download(
    desk: Desk, ask: AskUrl, relative_path: str, *, max_bytes: int, deadline: float
) -> AsyncGenerator[FileDownload]:
    """Fetch a file from the storage; asks for a new URL when one lapses.

    Raises:
        ResponseTooLarge: It says that it exceeds `max_bytes`.
        NotSent: The storage does not give it.
        DeadlineExceeded: It took too long.
    """
    request = GenerateURLForDownloadFile(relative_path)
    for last_chance in (False, True):
        async with AsyncExitStack() as stack:
            with _until(deadline):
                url = await _url(desk, await ask(request))
                try:
                    response = await stack.enter_async_context(
                        desk.client.stream("GET", url, follow_redirects=False, timeout=None)
                    )
                except Exception as error:
                    raise _storage_failed(f"does not answer ({type(error).__name__})") from error
            if response.status_code == 401 and not last_chance:
                continue
            if not response.is_success:
                raise _storage_failed(f"answers {response.status_code}", status=response.status_code)
            file = FileDownload(response, max_bytes, deadline)
            if file.size is not None and file.size > max_bytes:
                raise ResponseTooLarge(f"the file has {file.size} bytes, more than {max_bytes}")
            # Outside of any `try`: what the caller's block raises is the caller's, an error of httpx too.
            yield file
            return


@contextmanager
def _until(deadline: float) -> Generator[None]:
    """Bound one wait, never the caller's own work between two of them."""
    with anyio.CancelScope(deadline=deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineExceeded("the time ran out before the whole file had come", landed=Landed.NO)


async def _url(desk: Desk, granted: TransferUrl) -> httpx.URL:
    """The storage's URL. The path is taken as it came: encoding it again would break its signature."""
    base = httpx.URL(await desk.resolve("swift"))
    path = granted.relative_path
    if not path.startswith("/") or path.startswith("//") or not path.isascii() or any(c in path for c in "?# \r\n"):
        raise _storage_failed("has an address that cannot be used", retryable=False)
    query: dict[str, Any] = {name: str(value) for name, value in granted.query_params.items()}
    return base.copy_with(raw_path=f"{path}?{httpx.QueryParams(query)}".encode("ascii"))


def _storage_failed(what: str, *, status: int | None = None, retryable: bool = True) -> NotSent:
    return NotSent(f"the file storage {what}", status=status, retryable=retryable)
