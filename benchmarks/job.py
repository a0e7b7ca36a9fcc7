"""What one measurement is asked to do and what it gives back: plain data that crosses the process boundary."""

from __future__ import annotations

import attrs

__all__ = ["Job", "Sample"]


@attrs.frozen(kw_only=True)
class Job:
    """One rival at one number of messages in flight."""

    rival: str
    base: str
    """Where the cloud is: scheme, host, port."""
    control: str
    ca_file: str = ""
    in_flight: int
    loop: str = "asyncio"
    seconds: float = 0.4
    """How long the workers keep starting new messages."""
    profile: str = ""
    """Where to write a cProfile of the measured part, or empty."""


@attrs.frozen(kw_only=True)
class Sample:
    """What one run of a job showed."""

    messages: int
    seconds: float
    cpu: float
    """CPU seconds of the client process."""
    server_cpu: float
    p50: float
    p99: float
    memory: int
    """Growth of the client's resident memory in bytes, connections included."""

    @property
    def cpu_us(self) -> float:
        """Client CPU per message, microseconds."""
        return self.cpu / self.messages * 1e6

    @property
    def server_us(self) -> float:
        """Server CPU per message, microseconds."""
        return self.server_cpu / self.messages * 1e6

    @property
    def rate(self) -> float:
        """Messages per second of wall time."""
        return self.messages / self.seconds
