# SPDX-License-Identifier: GPL-2.0-only
"""Parts of the guest's measurements that need no kernel with the series."""

import os
import struct
import threading

import pytest

from fixtures.guest.bench import measure_two_cpus, wakeup_latency
from fixtures.guest.bench.kernel_work import QuietDetector, symbol_addresses
from fixtures.guest.bench.measure_by_flow_count import slab_object_size
from fixtures.guest.bench.measure_commit import acknowledge_last
from fixtures.guest.net import flowtable

_HEADER = struct.Struct("=IHHII")


def test_work_is_done_after_six_quiet_checks() -> None:
    is_quiet = QuietDetector()
    assert [is_quiet(1000) for _ in range(7)] == [False] * 6 + [True]


def test_work_between_two_checks_starts_the_count_again() -> None:
    is_quiet = QuietDetector()
    totals = [0] * 6 + [1_000_000] * 6
    assert not any(is_quiet(total) for total in totals)
    assert is_quiet(1_000_000)


def test_housekeeping_is_not_work() -> None:
    is_quiet = QuietDetector()
    assert [is_quiet(number * 50_000) for number in range(7)][-1]


def test_addresses_of_functions_in_modules_and_in_the_kernel() -> None:
    lines = [
        "ffffffff81000000 t gc_worker",
        "ffffffffc0001000 t nf_flow_offload_work_gc\t[nf_flow_table]",
        "ffffffff81000040 T gc_worker_other",
    ]
    names = frozenset({"gc_worker", "nf_flow_offload_work_gc"})
    assert symbol_addresses(lines, names) == [0xFFFFFFFF81000000, 0xFFFFFFFFC0001000]


def test_object_size_is_that_of_the_named_cache() -> None:
    text = (
        "slabinfo - version: 2.1\n"
        "# name            <active_objs> <num_objs> <objsize> <objperslab> : tunables\n"
        "nf_flow_snoop_x       1   1    512   16    2 : tunables    0    0    0\n"
        "nf_flow_snoop         3  21    384   21    2 : tunables    0    0    0\n"
    )
    assert slab_object_size(text, "nf_flow_snoop") == 384
    with pytest.raises(LookupError, match="no slab cache flow_offload"):
        slab_object_size(text, "flow_offload")


def _flags(batch: bytes) -> list[tuple[int, int]]:
    """Return type and flags of each message."""
    found, offset = [], 0
    while offset < len(batch):
        length, kind, flags, *_ = _HEADER.unpack_from(batch, offset)
        found.append((kind & 0xFF, flags))
        offset += (length + 3) & ~3
    return found


def test_only_the_last_message_of_a_batch_is_acknowledged() -> None:
    names = [f"t{number}" for number in range(3)]
    messages = [
        flowtable.new_table(flowtable.INET, "batch"),
        *(flowtable.new_flowtable(flowtable.INET, "batch", name) for name in names),
    ]
    before = flowtable.encode_batch(messages).data
    after = acknowledge_last(before)
    assert [kind for kind, _ in _flags(before)] == [kind for kind, _ in _flags(after)]
    assert [bool(flags & 4) for _, flags in _flags(before)] == [False, *[True] * 4, False]
    assert [bool(flags & 4) for _, flags in _flags(after)] == [False] * 4 + [True, False]


def test_latency_of_a_task_is_the_longest_since_the_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    with wakeup_latency.measure_wakeup_latency() as latency:
        before = latency.periods()
        latency.wait_for_periods(10)
        assert latency.periods() >= before + 10
        assert latency.longest_ns() > 0


def test_task_that_may_not_be_real_time_fails_the_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("SCHED_FIFO")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(wakeup_latency, "_START_SECONDS", 0.05)
    with (
        pytest.raises(AssertionError, match="SCHED_FIFO"),
        wakeup_latency.measure_wakeup_latency(),
    ):
        pytest.fail("the block must not run")


def test_each_cpu_sends_with_its_own_source_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = threading.local()
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: setattr(pinned, "cpus", cpus))
    sent: list[tuple[int, set[int], int]] = []
    together = threading.Barrier(2)

    def sender(number: int) -> measure_two_cpus.Send:
        def send(packets: int) -> int:
            together.wait(30)  # passes only if the other CPU sends too
            sent.append((number, pinned.cpus, packets))
            return packets

        return send

    rate = measure_two_cpus._flows_per_second([sender(0), sender(1)], 500)
    assert sorted(sent) == [(0, {0}, 500), (1, {1}, 500)]
    assert rate > 0
