"""Where it ran: CPU, versions, loops, cores."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("connector-async", "httpx", "httptools", "aiohttp", "httpx-aiohttp", "pyreqwest", "orjson", "uvloop")


def cores() -> tuple[int | None, int | None]:
    """The CPUs for client and server; None where there are not two, or where the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[-1], usable[0]) if len(usable) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process, and the threads it starts, on one CPU."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def loop_factory(name: str, *, fallback: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop, `asyncio` or `uvloop`; with `fallback`, asyncio's where uvloop is missing."""
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if not fallback:
            raise
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def rss() -> int:
    """Bytes of this process that are in memory now."""
    status = Path("/proc/self/statm")
    if not status.exists():
        import psutil

        return int(psutil.Process().memory_info().rss)
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def describe() -> dict[str, object]:
    """The machine and the versions, as a table's footer needs them."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
