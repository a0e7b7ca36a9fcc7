"""A store that shares tokens, on the clock of the test's loop; it can be made to fail or to hang."""

from __future__ import annotations

from collections import Counter

import anyio
import attrs

from connector_async.store import MemoryStore
from connector_async.store.tokens import SharedToken

__all__ = ["SharingStore"]


@attrs.define(eq=False)
class _Lease:
    owner: str
    until: float
    fence: int


@attrs.define(eq=False, slots=False)
class SharingStore(MemoryStore):
    """`failing` and `hanging` hold the names of methods that raise, or that never answer."""

    def __attrs_post_init__(self) -> None:
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.leases: dict[tuple[str, str], _Lease] = {}
        self.tokens: dict[tuple[str, str], tuple[str, float, int]] = {}
        self.fences = 0
        self.delay = 0.0

    @property
    def shares_tokens(self) -> bool:
        return True

    async def get_app_token(self, account_id: str, name: str) -> SharedToken | None:
        await self._pass("get")
        value, until, _ = self.tokens.get((account_id, name), ("", 0.0, 0))
        left = until - anyio.current_time()
        return SharedToken(value=value, seconds=left) if left > 0 else None

    async def put_app_token(self, account_id: str, name: str, *, value: str, seconds: float, fence: int) -> bool:
        await self._pass("put")
        if self.tokens.get((account_id, name), ("", 0.0, 0))[2] > fence:
            return False
        self.tokens[account_id, name] = (value, anyio.current_time() + seconds, fence)
        return True

    async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
        held = self.leases.get((account_id, name))
        now = anyio.current_time()
        if held is not None and held.owner != owner and held.until > now:
            await self._pass("acquire")
            return None
        self.fences += 1
        self.leases[account_id, name] = _Lease(owner, now + seconds, self.fences)
        # Taken before the answer, as a database does it whose answer is lost.
        await self._pass("acquire")
        return self.fences

    async def release_lease(self, account_id: str, name: str, *, owner: str) -> None:
        await self._pass("release")
        held = self.leases.get((account_id, name))
        if held is not None and held.owner == owner:
            del self.leases[account_id, name]

    async def _pass(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.hanging:
            await anyio.sleep_forever()
        await anyio.sleep(self.delay)
        if name in self.failing:
            raise ConnectionError("canary-free words that may hold a row")
