"""The wire-fault catalogue against every transport: what goes wrong is told apart, and nothing raw escapes."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from connector_async.transport import Answer, Headers, Target, Transport
from tests.backends import ASYNCIO, UVLOOP, VIRTUAL
from tests.faults import BEHAVIOURS, FaultServer, black_hole, refused_port
from tests.transport.certificates import authority
from tests.transport.kinds import EVERY_KIND, OWN_KINDS, Kind, outcome_of

pytestmark = pytest.mark.anyio

_HEADERS = Headers([("Content-Type", "application/json")])
# Seconds for exchanges that must end at their deadline, and for all others, which end by themselves.
_SHORT, _LONG = 0.3, 60.0
# The catalogue asks for 20 of each; for 28 faults x 5 transports 4 keep the suite short. `-m soak` runs 100.
_COUNT = 4

# Fault to the outcomes that are right: one, or more where two are true, such as a reset before or after our write.
EXPECTED: dict[str, set[str]] = {
    "refused": {"not sent"},
    "connect black hole": {"not sent, timed out"},
    "tls handshake stall": {"not sent, timed out"},
    "rst on accept": {"unknown", "not sent"},
    "fin, no bytes": {"unknown", "not sent"},
    "rst after request": {"unknown"},
    "partial headers, fin": {"unknown"},
    "partial headers, rst": {"unknown"},
    "short body, fin": {"unknown"},
    "short body, rst": {"unknown"},
    "truncated chunk": {"unknown"},
    "bad status line": {"protocol error"},
    "200 KB header": {"too large", "protocol error"},
    "no response": {"unknown, timed out"},
    "body dripped": {"unknown, timed out"},
    "headers dripped": {"unknown, timed out"},
    "gzip bomb": {"too large"},
    "corrupt gzip": {"protocol error"},
    "307 to a metadata address": {"redirect refused"},
    "1 GiB content-length": {"too large"},
    "endless chunks": {"too large"},
    "endless chunk extension": {"too large", "protocol error"},
    "endless trailer": {"too large", "protocol error"},
    "10,000 interim answers": {"protocol error"},
    "zero window": {"unknown, timed out"},
}

# Two posts one after the other on a connection that goes bad in between or in the second one.
EXPECTED_OF_SECOND: dict[str, set[str]] = {
    "surplus response": {"ok []"},
    "answer unasked": {"ok []"},
    "close after response": {"ok []"},
    "rst on reuse": {"unknown"},
    "fin on reuse": {"unknown"},
}

# These happen before anybody speaks of TLS, or are about nothing else.
_BEFORE_TLS = {"refused", "connect black hole", "tls handshake stall"}
_TIMED = {fault for fault, outcomes in EXPECTED.items() if any("timed out" in outcome for outcome in outcomes)}


def _is_timed(kind: Kind, fault: str) -> bool:
    return fault in _TIMED or "timed out" in kind.shortcomings.get(fault, "")


def _row(param: Any, fault: str) -> Any:
    """Where a deadline makes the outcome, time is virtual for who tells what was sent: it passes when nothing is left
    to do, so that no busy machine spends it all before the fault is met. (One that is met at once has no need of it,
    and a name's look-up, in a thread, would not be waited for.)
    """
    kind: Kind = param.values[0]
    is_virtual = _is_timed(kind, fault) and kind.knows_not_sent and fault not in _BEFORE_TLS
    loop = VIRTUAL if is_virtual else ASYNCIO
    return pytest.param(kind, fault, *loop.values, id=f"{param.id}-{fault}", marks=param.marks)


_ROWS = [_row(param, fault) for param in EVERY_KIND for fault in EXPECTED]


@contextlib.asynccontextmanager
async def _base(fault: str, *, tls: bool = False) -> AsyncIterator[str]:
    if fault == "refused":
        with refused_port() as port:
            yield f"http://127.0.0.1:{port}"
    elif fault == "connect black hole":
        async with black_hole() as port:
            yield f"http://127.0.0.1:{port}"
    else:
        async with FaultServer(
            BEHAVIOURS[fault], tls=authority().server_context("localhost") if tls else None
        ) as server:
            yield _secure(server.base) if tls or fault.startswith("tls") else server.base


def _secure(base: str) -> str:
    return base.replace("http:", "https:").replace("127.0.0.1", "localhost")


async def _post(transport: Transport, target: Target, seconds: float, body: bytes = b"{}") -> Answer | BaseException:
    start = anyio.current_time()
    try:
        result: Answer | BaseException = await transport.post(target, _HEADERS, body, start + seconds)
    except Exception as error:
        result = error
    elapsed = anyio.current_time() - start
    if "timed out" in outcome_of(result):
        # Not before. How late, test_deadlines.py shows: here the server and megabytes share the loop.
        assert elapsed >= seconds - 0.001
    return result


async def _outcomes(kind: Kind, fault: str, count: int, *, tls: bool = False) -> list[str]:
    seconds = _SHORT if _is_timed(kind, fault) else _LONG
    body = b"x" * 20_000_000 if fault == "zero window" else b"{}"
    results: list[Answer | BaseException] = []
    context = authority().client_context() if tls else None
    async with _base(fault, tls=tls) as base, kind(context) as transport:
        target = Target(base, "/path")

        async def one() -> None:
            results.append(await _post(transport, target, seconds, body))

        with anyio.fail_after(_LONG):
            async with anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(one)
    if fault in kind.leaks:
        with pytest.warns(ResourceWarning, match="unclosed"):
            gc.collect()
    return [outcome_of(result) for result in results]


def _judge(kind: Kind, fault: str, outcomes: list[str], expected: set[str]) -> None:
    known = kind.shortcomings.get(fault)
    if known is not None:
        assert set(outcomes) <= set(known.split(" | ")), f"{kind.name} behaves differently now: {set(outcomes)}"
        return
    if not kind.knows_not_sent:  # then nothing may be called "not sent"
        expected = {outcome.replace("not sent", "unknown") for outcome in expected}
    assert set(outcomes) <= expected


@pytest.mark.requirement("C2", "C19")
@pytest.mark.parametrize(("kind", "fault", "anyio_backend"), _ROWS)
async def test_each_wire_fault_has_its_own_outcome(kind: Kind, fault: str, anyio_backend: Any) -> None:
    """our fault tables, section 2: the column "must become"."""
    _judge(kind, fault, await _outcomes(kind, fault, _COUNT), EXPECTED[fault])


@pytest.mark.requirement("C2", "C19")
@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
@pytest.mark.parametrize("fault", [fault for fault in EXPECTED if fault not in _BEFORE_TLS])
@pytest.mark.parametrize("kind", OWN_KINDS[:2])
async def test_each_wire_fault_has_the_same_outcome_beneath_tls(kind: Kind, fault: str, anyio_backend: Any) -> None:
    """The production path is always TLS, and its layer is our own."""
    # The handshake counts: where little time is given, a busy machine may spend all of it there.
    expected = EXPECTED[fault] | ({"not sent, timed out"} if fault in _TIMED else set())
    _judge(kind, fault, await _outcomes(kind, fault, 1, tls=True), expected)


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "fault", "anyio_backend"), _ROWS)
async def test_each_wire_fault_has_its_own_outcome_every_time(kind: Kind, fault: str, anyio_backend: Any) -> None:
    """The same a hundred times over, in rounds of twenty."""
    for _ in range(5):
        _judge(kind, fault, await _outcomes(kind, fault, 20), EXPECTED[fault])


@pytest.mark.parametrize("fault", EXPECTED_OF_SECOND)
@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_a_kept_connection_that_goes_bad_costs_at_most_its_own_exchange(kind: Kind, fault: str) -> None:
    """our fault tables, section 2: the rows with a second POST."""
    outcomes: list[str] = []
    for _ in range(_COUNT):
        async with FaultServer(BEHAVIOURS[fault]) as server, kind() as transport:
            target = Target(server.base, "/path")
            first = await _post(transport, target, _LONG)
            assert outcome_of(first).startswith("ok")
            if fault == "answer unasked":
                with anyio.fail_after(_LONG):
                    while server.sends < 2:  # noqa: ASYNC110 - nothing tells that it is so
                        await anyio.sleep(0.001)
            if fault in ("close after response", "answer unasked"):
                await anyio.sleep(0.03)  # what comes unasked must have arrived
            outcomes.append(outcome_of(await _post(transport, target, _LONG)))
    _judge(kind, fault, outcomes, EXPECTED_OF_SECOND[fault])
