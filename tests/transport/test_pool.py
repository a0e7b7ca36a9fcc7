"""Which connection carries what: reuse, limits, turns, age, abort, closing; over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest

from connector_async.errors import ConfigurationError, Phase, TransportError
from connector_async.transport import Answer, Headers, PooledTransport, Target
from connector_async.transport._connection import Connection
from connector_async.transport._dial import Address
from tests.backends import ASYNCIO, UVLOOP, VIRTUAL
from tests.faults import FaultServer, Peer, answer, well_behaved
from tests.transport.wire import TARGET, Line, Wire

pytestmark = pytest.mark.anyio

_HEADERS = Headers([])


class Gate:
    """A server that answers the requests it holds when it is told to, in any order."""

    def __init__(self) -> None:
        self.held: list[asyncio.Event] = []
        self.order: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            body = request.partition(b"\r\n\r\n")[2]
            self.order.append(body)
            event = asyncio.Event()
            self.held.append(event)
            await event.wait()
            await peer.send(answer(body))

    async def holds(self, count: int) -> None:
        with anyio.fail_after(5):
            while len(self.held) < count:  # noqa: ASYNC110 - many places tell, one asks
                await asyncio.sleep(0)

    def let(self, index: int) -> None:
        self.held[index].set()


def _deadline(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def _start(
    transport: PooledTransport, target: Target, body: bytes = b"", seconds: float = 5.0
) -> asyncio.Task[Answer]:
    return asyncio.get_running_loop().create_task(transport.post(target, _HEADERS, body, _deadline(seconds)))


async def _turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_connection_used_last_is_used_first() -> None:
    """So that surplus connections grow old and go."""
    gate = Gate()
    async with FaultServer(gate) as server, PooledTransport() as transport:
        target = Target(server.base, "/")
        first, second = _start(transport, target, b"1"), _start(transport, target, b"2")
        await gate.holds(2)
        gate.let(0)
        gate.let(1)
        connections = [(await first).connection, (await second).connection]
        last = list(transport._pool.host(target.origin).idle)[-1]  # type: ignore[union-attr]
        third = _start(transport, target, b"3")
        await gate.holds(3)
        gate.let(2)
        assert (await third).connection is last
        assert last in connections
        assert server.connections == 2


async def test_who_waits_for_a_connection_is_served_in_turn() -> None:
    """FIFO."""
    gate = Gate()
    async with FaultServer(gate) as server, PooledTransport(max_connections=1) as transport:
        target = Target(server.base, "/")
        tasks = [_start(transport, target, b"%d" % number) for number in range(6)]
        for number in range(6):
            await gate.holds(number + 1)
            assert transport.statistics().waiting == 5 - number
            gate.let(number)
        assert [(await task).body for task in tasks] == [b"%d" % number for number in range(6)]
        assert gate.order == [b"%d" % number for number in range(6)]
        assert server.connections == 1


async def test_waiting_ends_at_the_callers_deadline() -> None:
    """Nothing was sent."""
    gate = Gate()
    async with FaultServer(gate) as server, PooledTransport(max_connections=1) as transport:
        target = Target(server.base, "/")
        busy = _start(transport, target)
        await gate.holds(1)
        with pytest.raises(TransportError) as caught:
            await transport.post(target, _HEADERS, b"", _deadline(0.03))
        assert (caught.value.phase, caught.value.sent, caught.value.timed_out) == (Phase.POOL, False, True)
        assert transport.statistics().waiting == 0
        gate.let(0)
        await busy


async def test_a_slot_that_a_failure_frees_goes_to_the_next_in_turn() -> None:
    """The connection of the one before is dead; the next one opens his own."""

    async def closes(peer: Peer) -> None:
        await peer.request()
        if peer.number > 1:
            await peer.send(answer(b"second"))

    async with FaultServer(closes) as server, PooledTransport(max_connections=1) as transport:
        target = Target(server.base, "/")
        first, second = _start(transport, target), _start(transport, target)
        with pytest.raises(TransportError):
            await first
        assert (await second).body == b"second"


async def test_the_limit_of_one_host_leaves_room_for_others() -> None:
    """`max_per_host`."""
    gate, other = Gate(), Gate()
    async with FaultServer(gate) as a, FaultServer(other) as b:
        async with PooledTransport(max_connections=3, max_per_host=1) as transport:
            tasks = [_start(transport, Target(a.base, "/")) for _ in range(2)]
            task = _start(transport, Target(b.base, "/"))
            await gate.holds(1)
            await other.holds(1)
            hosts = transport.statistics().hosts
            assert (hosts[a.base].connections, hosts[a.base].waiting, hosts[b.base].connections) == (1, 1, 1)
            other.let(0)
            await task
            for number in range(2):
                await gate.holds(number + 1)
                gate.let(number)
            await asyncio.gather(*tasks)


async def test_at_the_total_limit_an_idle_connection_of_another_host_makes_room() -> None:
    """The one that nobody used for longest."""
    async with FaultServer(well_behaved) as a, FaultServer(well_behaved) as b, FaultServer(well_behaved) as c:
        async with PooledTransport(max_connections=2) as transport:
            for server in (a, b, c):
                await transport.post(Target(server.base, "/"), _HEADERS, b"", _deadline())
            hosts = transport.statistics().hosts
            assert hosts.get(a.base) is None or hosts[a.base].connections == 0
            assert (hosts[b.base].idle, hosts[c.base].idle) == (1, 1)


async def test_at_the_total_limit_the_longest_wait_comes_first_across_hosts() -> None:
    """A busy host does not keep the slots from a quiet one."""
    busy, quiet = Gate(), Gate()
    async with FaultServer(busy) as a, FaultServer(quiet) as b:
        async with PooledTransport(max_connections=1) as transport:
            first = _start(transport, Target(a.base, "/"), b"a1")
            await busy.holds(1)
            second = _start(transport, Target(b.base, "/"), b"b1")
            await _turns()
            third = _start(transport, Target(a.base, "/"), b"a2")
            await _turns()
            busy.let(0)
            await quiet.holds(1)
            assert busy.order == [b"a1"]
            quiet.let(0)
            await busy.holds(2)
            busy.let(1)
            await asyncio.gather(first, second, third)
            assert (a.connections, b.connections) == (2, 1)


async def test_a_waiter_cancelled_in_the_turn_in_which_it_is_served_passes_the_connection_on() -> None:
    """No slot is lost."""
    wire = Wire(max_connections=1)
    first = wire.post()
    await asyncio.sleep(0)
    second, third = wire.post(b"second"), wire.post(b"third")
    await asyncio.sleep(0)
    wire.connection.data_received(answer())
    second.cancel()
    await _turns()
    assert wire.line.written.endswith(b"third")
    wire.connection.data_received(answer())
    assert (await first).status == (await third).status == 200
    with pytest.raises(asyncio.CancelledError):
        await second
    assert wire.is_kept
    await wire.transport.aclose()


async def test_a_waiter_cancelled_before_it_is_served_is_passed_over() -> None:
    """It is out of the queue when its task has run."""
    wire = Wire(max_connections=1)
    first = wire.post()
    await asyncio.sleep(0)
    second, third = wire.post(b"second"), wire.post(b"third")
    await asyncio.sleep(0)
    second.cancel()
    wire.connection.data_received(answer())  # before the task of the second one has run
    await _turns()
    assert wire.line.written.endswith(b"third")
    wire.connection.data_received(answer())
    await asyncio.gather(first, third)
    await asyncio.wait([second])
    await wire.transport.aclose()


async def test_a_permission_to_connect_that_is_not_used_passes_on() -> None:
    """Cancelled when it had been handed a free slot but not yet connected."""
    async with FaultServer(well_behaved) as server, PooledTransport(max_connections=1) as transport:
        target = Target(server.base, "/")
        first = _start(transport, target)
        second, third = _start(transport, target), _start(transport, target)
        await asyncio.sleep(0)
        assert transport.statistics().waiting == 2
        first.cancel()
        while transport.statistics().waiting == 2:  # noqa: ASYNC110 - nothing tells that it is so
            await asyncio.sleep(0)
        second.cancel()
        assert (await third).status == 200
        await asyncio.wait([first, second])
        assert transport.statistics().idle == 1


async def test_a_connection_that_dies_when_it_is_handed_over_is_not_used() -> None:
    """The waiter queues again."""
    wire = Wire(max_connections=1)
    first = wire.post()
    await asyncio.sleep(0)
    second = wire.post(b"second")
    await asyncio.sleep(0)
    wire.connection.data_received(answer())
    dead = wire.connection
    dead.eof_received()  # before the second one's task has run
    assert dead.is_discarded
    await first
    second.cancel()
    await asyncio.wait([second])
    assert not dead.host.openings
    assert wire.transport.statistics().opening == 0
    await wire.transport.aclose()


async def test_a_connection_that_dies_while_the_one_it_was_handed_to_is_cancelled_is_gone() -> None:
    """Nothing to pass on."""
    wire = Wire(max_connections=1)
    first = wire.post()
    await asyncio.sleep(0)
    second = wire.post(b"second")
    await asyncio.sleep(0)
    wire.connection.data_received(answer())
    second.cancel()
    wire.connection.eof_received()
    await first
    await asyncio.wait([second])
    assert wire.transport.statistics().connections == 0
    await wire.transport.aclose()


async def test_a_server_that_closes_at_once_was_sent_nothing() -> None:
    """Seen before the first byte was written."""
    wire = Wire()
    opening = wire.pool._reserve(wire.host, None)
    assert opening is not None

    async def connect(*_: object) -> Any:
        connection = wire.attach()
        connection.discard()
        return connection

    wire.pool._connect = connect  # type: ignore[assignment, method-assign]  # shorter than the race itself
    with pytest.raises(TransportError, match="at once") as caught:
        await wire.pool._open(wire.host, opening, 0.0)
    assert not caught.value.sent
    assert wire.transport.statistics().opening == 0
    await wire.transport.aclose()


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_an_idle_connection_is_closed_in_time(anyio_backend: Any) -> None:
    """`idle_timeout`, up to a second late."""
    wire = Wire(idle_timeout=10.0)
    await asyncio.sleep(5)
    second = wire.attach()
    await asyncio.sleep(6.5)
    assert list(wire.host.connections) == [second]
    await asyncio.sleep(5)
    assert not wire.host.connections
    await wire.transport.aclose()


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_an_old_connection_is_not_used_again(anyio_backend: Any) -> None:
    """`max_age`: changes of DNS are followed."""
    wire = Wire()
    wire.connection.expires_at = 1.0
    task = wire.post(seconds=30)
    await asyncio.sleep(2)
    wire.connection.data_received(answer())
    await task
    assert wire.transport.statistics().connections == 0
    wire.attach().expires_at = 4.0
    await asyncio.sleep(3)
    assert wire.pool.take(wire.host, wire.pool.loop.time()) is None
    assert wire.transport.statistics().connections == 0
    await wire.transport.aclose()


async def test_max_age_is_spread() -> None:
    """Connections opened together do not all end together."""
    async with FaultServer(well_behaved) as server, PooledTransport(max_age=100.0) as transport:
        await transport.post(Target(server.base, "/"), _HEADERS, b"", _deadline())
        (connection,) = transport._pool.host(Target(server.base, "/").origin).connections  # type: ignore[union-attr]
        assert 89 < connection.expires_at - asyncio.get_running_loop().time() <= 100


async def test_a_loop_that_was_blocked_notices_that_the_server_closed() -> None:
    """A connection idle for a second is looked at before it is used."""
    async with FaultServer(well_behaved) as server, PooledTransport() as transport:
        target = Target(server.base, "/")
        first = await transport.post(target, _HEADERS, b"", _deadline())
        connection = first.connection
        assert isinstance(connection, Connection)
        connection.look_at = 0.0
        again = await transport.post(target, _HEADERS, b"", _deadline())
        assert again.connection is connection  # nothing to read: still good
        connection.look_at = 0.0
        fd = connection.transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(fd)) as same:
            same.shutdown(socket.SHUT_RD)  # what an unread FIN looks like; the loop has not run since
            third = await transport.post(target, _HEADERS, b"", _deadline())
        assert third.connection is not connection


@pytest.mark.parametrize("stage", ["connecting", "queued", "sent"])
async def test_abort_ends_every_exchange_of_its_target_and_no_other(stage: str) -> None:
    """Wherever they are."""
    gate = Gate()

    async def never(host: str, port: int) -> Sequence[Address]:
        await anyio.sleep_forever()
        return []

    settings: dict[str, Any] = {"resolver": never} if stage == "connecting" else {}
    async with FaultServer(gate) as server:
        async with PooledTransport(max_connections=1 if stage == "queued" else 3, **settings) as transport:
            mine, other = Target(server.base, "/mine"), Target(server.base, "/other")
            theirs = _start(transport, other)
            if stage != "connecting":
                await gate.holds(1)
            ours = _start(transport, mine)
            await (gate.holds(2) if stage == "sent" else _turns())
            transport.abort(mine)
            with anyio.fail_after(60), pytest.raises(TransportError) as caught:
                await ours
            assert caught.value.sent == (stage == "sent")
            assert not caught.value.timed_out
            assert not theirs.done()
            if stage == "connecting":
                theirs.cancel()
                await asyncio.wait([theirs])
            else:
                gate.let(0)
                await theirs


async def test_aborting_what_was_just_permitted_to_connect_ends_it_before_it_does() -> None:
    """Between the permission and the first step."""
    wire = Wire(max_connections=1)
    first = wire.post()
    await asyncio.sleep(0)
    second = wire.post(b"second")
    await asyncio.sleep(0)
    wire.connection.eof_received()
    assert wire.transport.statistics().opening == 1
    wire.transport.abort(TARGET)
    for task in (first, second):
        with pytest.raises(TransportError):
            await task
    await wire.transport.aclose()


async def test_aborting_a_waiter_that_was_cancelled_a_moment_ago_changes_nothing() -> None:
    """Its task has not run yet."""
    wire = Wire(max_connections=1)
    first, second = wire.post(), wire.post()
    await asyncio.sleep(0)
    second.cancel()
    wire.transport.abort(TARGET)
    with pytest.raises(asyncio.CancelledError):
        await second
    with pytest.raises(TransportError):
        await first
    await wire.transport.aclose()


async def test_a_connection_that_is_made_after_its_attempt_was_given_up_is_closed() -> None:
    """uvloop may tell so late."""
    wire = Wire()
    late = Connection(wire.pool, wire.host)
    late.discard()
    line = Line(late)
    late.connection_made(line)
    assert line.is_aborted
    await asyncio.sleep(0)
    await wire.transport.aclose()


async def test_hosts_without_connections_are_forgotten() -> None:
    """A process may talk to many in its life."""
    async with FaultServer(well_behaved) as a, FaultServer(well_behaved) as b, PooledTransport() as transport:
        transport.discard(await transport.post(Target(a.base, "/"), _HEADERS, b"", _deadline()))
        await transport.post(Target(b.base, "/"), _HEADERS, b"", _deadline())
        assert list(transport.statistics().hosts) == [b.base]
        transport.discard(Answer(200, (), b""))  # of somebody else: nothing to discard


async def test_closing_does_not_wait_for_ever_for_a_socket() -> None:
    """A second at most, whatever the loop says."""
    wire = Wire()
    wire.line.abort = lambda: None  # type: ignore[method-assign]
    with anyio.fail_after(60):
        await wire.transport.aclose()


async def test_closing_ends_everything_and_leaves_no_socket() -> None:
    """And what comes after it is told so."""
    gate = Gate()
    async with FaultServer(gate) as server:
        transport = PooledTransport(max_connections=1)
        target = Target(server.base, "/")
        sent, queued = _start(transport, target), _start(transport, target)
        await gate.holds(1)
        await transport.aclose()
        await transport.aclose()
        for task in (sent, queued):
            with pytest.raises(TransportError, match="closed"):
                await task
        with pytest.raises(TransportError) as caught:
            await transport.post(target, _HEADERS, b"", _deadline())
        assert (caught.value.sent, caught.value.retryable) == (False, False)
        assert "0 connections" in repr(transport)


async def test_a_closed_transport_can_be_entered_again() -> None:
    """A module may keep one for sessions that come and go."""
    async with FaultServer(well_behaved) as server:
        transport = PooledTransport()
        for _ in range(2):
            async with transport:
                await transport.post(Target(server.base, "/"), _HEADERS, b"", _deadline())
                assert transport.statistics().opened == 1


@contextlib.asynccontextmanager
async def _one_request(transport: PooledTransport) -> AsyncIterator[None]:
    async with FaultServer(well_behaved) as server:
        result = await transport.post(Target(server.base, "/"), _HEADERS, b"", _deadline())
        assert result.status == 200
        yield


def test_a_transport_left_open_works_in_the_next_loop() -> None:
    """The connections of the closed loop are dropped, without a word."""
    transport = PooledTransport()

    async def once() -> None:
        async with _one_request(transport):
            pass

    for _ in range(2):
        asyncio.run(once())

    async def close() -> None:
        await transport.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(close())
        gc.collect()
    asyncio.run(close())


def test_connections_that_are_open_when_their_loop_is_closed_go_without_a_word() -> None:
    """Nothing can be closed properly then; the next loop starts afresh."""
    answered: list[int] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.ExitStack() as connections:
            for number in range(2):
                connected = connections.enter_context(listener.accept()[0])
                while not connected.recv(65_536).endswith(b"\r\n\r\n"):
                    pass
                connected.sendall(answer())
                answered.append(number)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}", "/")
        transport = PooledTransport()

        async def once() -> int:
            await transport.post(target, _HEADERS, b"", _deadline())
            return transport.statistics().connections

        for _ in range(2):
            assert asyncio.run(once()) == 1
        thread.join()
        asyncio.run(transport.aclose())
        assert transport.statistics().connections == 0
    assert answered == [0, 1]


def test_two_loops_at_a_time_are_told_so() -> None:
    """Connections belong to one loop."""
    transport = PooledTransport()
    other = asyncio.new_event_loop()

    async def main() -> None:
        async with _one_request(transport):
            pass

    async def misuse() -> None:
        await transport.post(Target("http://127.0.0.1:1", "/"), _HEADERS, b"", _deadline())

    async def close() -> None:
        await transport.aclose()

    async def close_and_wait() -> None:
        await transport.aclose()
        await asyncio.sleep(0)

    try:
        other.run_until_complete(main())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(misuse())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(close())
        other.run_until_complete(close_and_wait())
    finally:
        other.close()


def test_building_one_needs_no_loop_and_reads_nothing() -> None:
    """It is a setting until the first request."""
    transport = PooledTransport(ca_file="/does/not/exist")
    assert transport.statistics().connections == 0
    transport.abort(Target("http://x", "/"))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_connections": 0},
        {"max_per_host": 0},
        {"max_body_bytes": 0},
        {"idle_timeout": 0},
        {"connect_timeout": -1},
        {"max_connections": "5"},
        {"max_head_bytes": 1.5},
        {"idle_timeout": None},
        {"max_age": float("nan")},
        {"ssl_context": False},
        {"ca_file": 5},
        {"cert": ("one",)},
        {"cert": ["certificate", "key"]},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict[str, Any]) -> None:
    """At once, not at the first request."""
    (name,) = settings
    with pytest.raises(ConfigurationError, match=name):
        PooledTransport(**settings)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_sockets_have_no_delay_and_keep_alive(anyio_backend: Any) -> None:
    """Small requests go at once, and a dead peer is noticed."""
    async with FaultServer(well_behaved) as server, PooledTransport() as transport:
        result = await transport.post(Target(server.base, "/"), _HEADERS, b"", _deadline())
        connection: Any = result.connection
        connected = connection.transport.get_extra_info("socket")
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_statistics_count_connections_and_exchanges() -> None:
    """Live ones and those that are gone."""
    async with FaultServer(well_behaved) as server, PooledTransport() as transport:
        for number in range(3):
            result = await transport.post(Target(server.base, "/"), _HEADERS, b"", _deadline())
            if number == 1:
                transport.discard(result)
        now = transport.statistics()
        assert (now.opened, now.exchanges, now.connections, now.idle) == (2, 3, 1, 1)
