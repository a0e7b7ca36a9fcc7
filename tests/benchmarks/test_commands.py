"""Every command of `python -m benchmarks` at tiny counts: the numbers are there and fit together.

How good they are is not a test's business.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

for needed in ("aiohttp", "httpx_aiohttp", "pyreqwest", "trustme"):
    pytest.importorskip(needed, reason="the benchmarks need the extra `bench`")


def run(*arguments: str) -> dict[str, Any]:
    """The JSON object of one command."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    assert result["problems"] == [], result["problems"]
    assert result["machine"]["python"]
    return result


@pytest.mark.parametrize("tls", ["off", "on"])
def test_send_measures_every_rival_that_is_asked_for(tls: str, tmp_path: Path) -> None:
    """Our decision: all rivals in one run, each with CPU, rate, latency and memory."""
    rivals = ["lean floor", "floor", "pooled", "session", "pyreqwest", "aiohttp", "httpx+aiohttp", "httpx"]
    plot = tmp_path / "plot.png"
    pictured = ["--plot", str(plot)] if tls == "off" else []
    if pictured:
        pytest.importorskip("matplotlib")
    asked = ["--in-flight", "3", "--rivals", ",".join(rivals), "--rounds", "1", "--seconds", "0.01", "--tls", tls]
    result = run("send", *asked, *pictured)
    assert [row["rival"] for row in result["rows"]] == rivals
    for row in result["rows"]:
        assert row["in_flight"] == 3
        assert row["tls"] is (tls == "on")
        assert row["messages"] >= 3
        assert row["cpu_us"] > 0
        assert row["rate"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        low, high = row["cpu_us_range"]
        assert low <= row["cpu_us"] <= high
    assert plot.exists() is bool(pictured)


def test_send_judges_the_session_by_the_ratios_of_the_same_run() -> None:
    """Our decision: every promise is printed beside what was measured."""
    asked = ["--in-flight", "50,2000", "--rivals", "session", "--rounds", "1", "--seconds", "0.01"]
    judged = {target["what"]: target for target in run("send", *asked)["targets"]}
    growth = judged["session at 2,000 in flight / at 50"]
    assert growth["measured"] > 0
    assert growth["verdict"] in {"met", "missed"}
    assert judged["session / aiohttp at 100 in flight"]["verdict"] == "not measured"


@pytest.mark.requirement("C24")
def test_load_compares_rate_and_tail_at_a_slow_server() -> None:
    """Row C24 of the fault catalogue, at a count that shows only that it works."""
    result = run("load", "--in-flight", "5", "--latency", "0.001", "--rounds", "1", "--seconds", "0.02")
    rows = {row["rival"]: row for row in result["rows"]}
    assert {"session", "aiohttp"} <= rows.keys()
    assert all(row["p50_ms"] >= 1 for row in rows.values())
    assert all(target["measured"] > 0 for target in result["targets"])


def test_scale_counts_in_flight_and_idle_consumers() -> None:
    """Our decision: cost against in flight and against how many are silent."""
    result = run("scale", "--in-flight", "2,4", "--consumers", "1,1000", "--rounds", "1", "--seconds", "0.01")
    in_flight = [row["in_flight"] for row in result["rows"] if "in_flight" in row]
    consumers = [(row["consumers"], row["made_by"]) for row in result["rows"] if "consumers" in row]
    assert in_flight == [2, 4]
    assert consumers == [(1, "the store"), (1000, "the store"), (1000, "sending")]
    assert all(target["measured"] is not None for target in result["targets"])


def test_tokens_asks_once_and_every_message_is_accepted() -> None:
    """Design decision 4: one token call, however many wait."""
    waiting = 300
    result = run("tokens", "--waiting", str(waiting), "--lifetime", "0.5")
    assert [row["case"] for row in result["rows"]] == ["cold", "expired", "refused"]
    for row in result["rows"]:
        assert row["answered"] == waiting
        assert row["token_calls"] == 1
    assert [row["refused"] > 0 for row in result["rows"]] == [False, False, True]


def test_memory_weighs_messages_in_flight_and_idle_consumers() -> None:
    """Our decision: bytes per message in flight beside the transport alone and the floor."""
    result = run("memory", "--in-flight", "20", "--consumers", "200")
    held = {row["rival"]: row["traced_per_request"] for row in result["rows"] if "rival" in row}
    assert {"floor", "pooled", "session"} <= held.keys()
    assert all(size > 0 for size in held.values())


def test_imports_takes_both_in_fresh_interpreters() -> None:
    """Our decision: the ratio to `import httpx` is what counts."""
    result = run("imports", "--rounds", "1")
    assert {"connector_async", "httpx"} <= {row["import"] for row in result["rows"]}
    assert result["targets"][0]["measured"] > 0


def test_wire_reads_and_writes_every_payload_both_ways() -> None:
    """Our decision: typed messages are measured beside plain orjson."""
    rows = run("wire", "--rounds", "1", "--messages", "20")["rows"]
    assert len({(row["payload"], row["direction"]) for row in rows}) == len(rows) == 8
    assert all(row["plain_us"] > 0 and row["typed_us"] > 0 and row["ratio"] > 0 for row in rows)


def test_webhooks_weighs_both_endpoints() -> None:
    """Our decision: a handled notification is measured beside an endpoint that only checks the HMAC."""
    pytest.importorskip("starlette")
    result = run("webhooks", "--rounds", "1", "--messages", "20", "--conversations", "4")
    assert all(row["bare"] > 0 and row["ours"] > 0 for row in result["rows"])
    assert result["targets"][0]["measured"] > 0


def test_an_unknown_rival_is_wrong_use() -> None:
    """Exit code 2, as everywhere."""
    command = [sys.executable, "-m", "benchmarks", "send", "--rivals", "nobody"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "nobody" in ran.stderr
