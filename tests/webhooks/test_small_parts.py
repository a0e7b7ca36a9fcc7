"""The parts that need no event loop, or only one: lanes, answer guard, parts of a notification, settings."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from connector_async.webhooks import WebhookSettings, WebhookStats
from connector_async.webhooks._answer_guard import AnswerGuard
from connector_async.webhooks._lanes import Lanes
from connector_async.webhooks._parts import split
from connector_async.wire import parse_notification
from tests.backends import ASYNCIO_AND_TRIO
from tests.webhooks.rig import change, chat_state, content, notification


@pytest.mark.anyio
async def test_jobs_of_a_lane_run_in_order_and_those_of_others_at_once() -> None:
    """In order per conversation, parallel across, bounded."""
    running: set[str] = set()
    most, log = 0, list[str]()

    async def run(job: str) -> None:
        nonlocal most
        assert job[0] not in {one[0] for one in running}
        running.add(job)
        most = max(most, len(running))
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        running.discard(job)
        log.append(job)

    async with anyio.create_task_group() as tasks:
        lanes = Lanes(run, tasks.start_soon, 3)
        for number in range(4):
            for lane in "abcde":
                lanes.put(lane, f"{lane}{number}")
        assert lanes.size == 20
        await lanes.idle()
        assert lanes.size == 0
        await lanes.idle()
        lanes.stop()
    assert most == 3
    for lane in "abcde":
        assert [job for job in log if job[0] == lane] == [f"{lane}{number}" for number in range(4)]
    assert sorted(log[:5]) == ["a0", "b0", "c0", "d0", "e0"], "a busy lane goes to the back"


@pytest.mark.anyio
async def test_stopped_lanes_begin_no_further_job() -> None:
    """What is at work ends, what waits stays."""
    release, log = anyio.Event(), list[str]()

    async def run(job: str) -> None:
        log.append(job)
        await release.wait()

    async with anyio.create_task_group() as tasks:
        lanes = Lanes(run, tasks.start_soon, 1)
        for job in ("a1", "a2", "b1"):
            lanes.put(job[0], job)
        await anyio.wait_all_tasks_blocked()
        lanes.stop()
        lanes.put("c", "c1")
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert log == ["a1"]
        assert lanes.size == 3


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_a_few_workers_stay_for_the_next_job_and_end_when_stopped() -> None:
    """A task for each delivery would be the dearest part of it."""
    started, done, release = 0, 0, anyio.Event()

    async def run(job: str) -> None:
        nonlocal done
        if job == "wait":
            await release.wait()
        done += 1

    async with anyio.create_task_group() as tasks:

        def start(work: Any) -> None:
            nonlocal started
            started += 1
            tasks.start_soon(work)

        lanes = Lanes(run, start, 100)
        for number in range(50):
            lanes.put(f"quick-{number}", "quick")
        await lanes.idle()
        await anyio.wait_all_tasks_blocked()
        assert (done, started) == (50, 2), "the first did everything, the second came for nothing"
        for number in range(60):
            lanes.put(f"slow-{number}", "wait")
        await anyio.wait_all_tasks_blocked()
        assert started == 60
        release.set()
        await lanes.idle()
        await anyio.wait_all_tasks_blocked()
        lanes.put("again", "quick")
        await lanes.idle()
        assert started == 60
        lanes.stop()
    assert done == 111


@pytest.mark.anyio
async def test_a_cancelled_worker_leaves_the_lanes_usable() -> None:
    """Its job is gone, its lane is not stuck."""

    async def run(job: str) -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        lanes = Lanes(run, tasks.start_soon, 1)
        lanes.put("a", "a1")
        lanes.put("a", "a2")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
        assert lanes.size == 1


def test_the_guard_alarms_on_a_slow_mean_before_the_vendor_does() -> None:
    """2.5 s over 2 minutes may disable the app (webhooks disclaimers): alarm at 1 s over 30 s."""
    guard = AnswerGuard()
    assert [guard.record(0.01, now / 10) for now in range(100)] == [None] * 100
    alarms = [(now, guard.record(2.4, float(now))) for now in range(10, 120)]
    at = [now for now, mean in alarms if mean is not None]
    assert at[0] - 10 < 30, "within half a minute of becoming slow"
    assert at == [at[0], at[0] + 30, at[0] + 60]


def test_the_guard_forgives_single_slow_answers_and_forgets_old_ones() -> None:
    """One hiccup among many good answers is no alarm; neither is one long ago."""
    guard = AnswerGuard()
    for now in range(20):
        guard.record(0.01, float(now))
    assert guard.record(3.0, 20.0) is None
    assert guard.record(1.1, 60.0) == pytest.approx(1.1)
    assert len(guard._seconds) == 1


def test_the_same_event_has_the_same_key_however_it_is_delivered() -> None:
    """De-duplicate by (conversation, dialog, sequence) and by change time stamp (webhooks disclaimers)."""
    one = split(parse_notification(notification(content("c", 5), content("d", 5))))  # type: ignore[arg-type]  # one object
    two = split(parse_notification(notification(content("d", 5, "other text"))))  # type: ignore[arg-type]  # one object
    assert [part.index for part in one] == [0, 1]
    assert one[1].key == two[0].key != one[0].key
    older_feed = split(parse_notification(notification(content("c", 5, conversationId=None))))  # type: ignore[arg-type]
    assert older_feed[0].key == one[0].key
    changes = [split(parse_notification(change("c", stamp)))[0].key for stamp in (1, 1, 2, None)]  # type: ignore[arg-type]
    assert changes[0] == changes[1]
    assert len(set(changes)) == 3


def test_what_has_no_number_is_told_by_its_content_or_not_at_all() -> None:
    """Chat states need no dedupe: the same one may well come twice (webhooks disclaimers)."""
    bare = notification(
        chat_state("c"),
        content("c", None),
        content("c", None, serverTimestamp=None),
        content("c", None, "other"),
    )
    keys = [part.key for part in split(parse_notification(bare))]  # type: ignore[arg-type]  # one object
    assert keys[0] is None
    assert keys[2] is None
    assert keys[1] is not None
    assert keys[1] != keys[3]


def test_notifications_of_new_types_have_no_parts() -> None:
    """Surface unknown ones, never fail."""
    assert split(parse_notification({"type": "x.New", "body": {"a": 1}})) == []  # type: ignore[arg-type]  # one object


def test_the_pause_between_attempts_doubles_up_to_its_limit() -> None:
    """1, 2, 4 … s."""
    settings = WebhookSettings(max_retry_pause=10.0)
    assert [settings.retry_wait(attempt) for attempt in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize("wrong", [{"max_handlers": 0}, {"gap_timeout": -1.0}, {"lease": 0.0}, {"max_attempts": 0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    """Validators check ranges at construction."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WebhookSettings(**wrong)  # type: ignore[arg-type]  # chosen by name


def test_stats_become_a_mapping() -> None:
    """For metrics."""
    assert WebhookStats(handled=3).as_dict()["handled"] == 3
    assert set(WebhookStats().as_dict()) == {field.name for field in attrs.fields(WebhookStats)}
