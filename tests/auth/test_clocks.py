"""Wall clocks that are wrong, or jump: nothing of ours is told the time by them."""

from __future__ import annotations

import datetime as dt
import time

import anyio
import pytest
import time_machine

from connector_async.transport.base import Answer
from tests.auth.test_app_token import jwt
from tests.doubles import FakeCloud, Post, answer
from tests.exchange.rig import rig

pytestmark = pytest.mark.anyio

HOUR, DAY = 3_600.0, 86_400.0
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class DatedCloud(FakeCloud):
    """Its tokens carry the times of its own clock, which is right."""

    async def give_token(self, post: Post) -> Answer:
        await super().give_token(post)
        issued = NOW.timestamp() + anyio.current_time()
        token = jwt({"iat": issued, "exp": issued + HOUR, "n": len(self.token_posts)})
        return answer(200, {"access_token": token})

    def holds(self, post: Post) -> bool:
        return True


@pytest.mark.parametrize("skew", [0.0, HOUR, -HOUR, DAY, -DAY])
@pytest.mark.parametrize("jump", [0.0, HOUR, -HOUR, DAY, -DAY])
async def test_c8_the_times_of_renewal_do_not_move_with_the_wall_clock(skew: float, jump: float) -> None:
    """C8: skew and jumps; renewal times unchanged, 0 failures."""
    cloud = DatedCloud()
    with time_machine.travel(NOW.timestamp() + skew, tick=False) as traveller:
        async with rig(cloud, random=lambda: 0.0) as r:
            while anyio.current_time() < 4 * HOUR:
                await r.send()
                await anyio.sleep(600.0)
                if anyio.current_time() == 1_800.0:
                    traveller.move_to(time.time() + jump)
            times = [round(post.at) for post in cloud.token_posts]
            assert times == [0, 3_240, 6_480, 9_720, 12_960]
            assert r.engine.counters.accepted == r.engine.counters.requests
