# SPDX-License-Identifier: GPL-2.0-only
"""Which splats are one, and what is told of a campaign."""

import pytest

from fixtures.host.model.race_stats import met, races
from fixtures.host.model.results import Repetition, Run, TestResult, Verdict
from fixtures.host.report import time_series
from fixtures.host.report.html_report import render
from fixtures.host.report.splat_dedup import Fingerprint, fingerprint, groups
from tests.unit.host.report import run_samples

KASAN = """\
[   12.100000] BUG: KASAN: slab-use-after-free in flowmap_lookup+0x1c/0x{size}
[   12.100001] Read of size 8 at addr ffff8880{address} by task python3/{pid}
[   12.100002]
[   12.100003] CPU: 1 UID: 0 PID: {pid} Comm: python3 Not tainted 7.3.4-suite #1
[   12.100004] Call Trace:
[   12.100005]  <TASK>
[   12.100006]  dump_stack_lvl (lib/dump_stack.c:123)
[   12.100007]  print_report (mm/kasan/report.c:378 mm/kasan/report.c:482)
[   12.100008]  ? flowmap_lookup (net/netfilter/nf_flow_table_bpf.c:{line}) nf_flowmap
[   12.100009]  kasan_report (mm/kasan/report.c:597)
[   12.100010]  flowmap_lookup (net/netfilter/nf_flow_table_bpf.c:{line}) nf_flowmap
[   12.100011]  {caller} (kernel/bpf/syscall.c:300)
[   12.100012]  __sys_bpf (kernel/bpf/syscall.c:1800 (discriminator 4))
[   12.100013]  __x64_sys_bpf (kernel/bpf/syscall.c:6000)
[   12.100014]  do_syscall_64 (arch/x86/entry/syscall_64.c:63)
[   12.100015]  entry_SYSCALL_64_after_hwframe (arch/x86/entry/entry_64.S:130)
[   12.100016] RIP: 0033:0x7f0000000000
[   12.100017]  </TASK>
[   12.100018] Allocated by task 1:
[   12.100019]  kasan_save_stack (mm/kasan/common.c:57)
"""
ONE = KASAN.format(size="60", address="04a31c40", pid=412, line=212, caller="bpf_map_copy_value")

WARNED = """\
WARNING: net/netfilter/nf_flow_table_core.c:{line} at nf_flow_snoop_del+0x1/0x3, CPU#{cpu}: a/{pid}
RIP: 0010:nf_flow_snoop_del (net/netfilter/nf_flow_table_core.c:{line})
"""

RACE = """\
BUG: KCSAN: data-race in flow_offload_add / flow_offload_lookup

write to 0xffff888004a31c40 of 8 bytes by task 70 on cpu 0:
 flow_offload_add (net/netfilter/nf_flow_table_core.c:300) nf_flow_table
 nft_flow_offload_eval (net/netfilter/nft_flow_offload.c:400)

read to 0xffff888004a31c40 of 8 bytes by task 71 on cpu 1:
 flow_offload_lookup (net/netfilter/nf_flow_table_core.c:500) nf_flow_table
"""


def test_the_frames_that_tell_of_the_fault_are_in_the_fingerprint() -> None:
    assert fingerprint(ONE) == Fingerprint(
        "BUG: KASAN: slab-use-after-free in flowmap_lookup",
        ("flowmap_lookup", "bpf_map_copy_value", "__sys_bpf", "__x64_sys_bpf"),
    )


def test_addresses_numbers_and_places_do_not_count() -> None:
    other = KASAN.format(
        size="70", address="0c000000", pid=9, line=215, caller="bpf_map_copy_value"
    )
    assert fingerprint(other) == fingerprint(ONE)
    one, two = (WARNED.format(line=at, cpu=at % 2, pid=at) for at in (7, 90))
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one) == Fingerprint("WARNING: at nf_flow_snoop_del", ("nf_flow_snoop_del",))


def test_another_way_to_the_fault_is_another_splat() -> None:
    other = KASAN.format(
        size="60", address="04a31c40", pid=412, line=212, caller="bpf_map_get_next"
    )
    assert fingerprint(other) != fingerprint(ONE)


def test_of_a_data_race_the_first_side_counts() -> None:
    assert fingerprint(RACE) == Fingerprint(
        "BUG: KCSAN: data-race in flow_offload_add / flow_offload_lookup",
        ("flow_offload_add", "nft_flow_offload_eval"),
    )


@pytest.mark.parametrize("text", ["", "\n", "no trace at all"])
def test_what_has_no_trace_has_a_title_only(text: str) -> None:
    assert fingerprint(text) == Fingerprint(text.strip(), ())


def _splat(nodeid: str, splat: str, seed: int) -> TestResult:
    return run_samples.result(
        f"selftests/races/test_a.py::{nodeid}",
        Verdict.SPLAT,
        splat=splat,
        seed=seed,
        replay=f"tox -e vm -- --seed {seed} {nodeid}",
    )


def test_a_splat_of_several_tests_is_told_once_with_how_to_repeat_it() -> None:
    run = run_samples.run(
        _splat("test_other", RACE, 1),
        _splat("test_x", ONE, 2),
        _splat("test_y", ONE.replace("412", "413"), 3),
        run_samples.result("selftests/races/test_a.py::test_plain", Verdict.FAILED, message="E no"),
    )
    found = groups([(run, test) for test in run.tests])
    assert [[test.seed for _, test in group.failures] for group in found] == [[2, 3], [1]]
    page = render([run], ())
    assert page.count("<td>BUG: KASAN: slab-use-after-free in flowmap_lookup<br>") == 1
    assert (
        "tox -e vm -- --seed 2 test_x"
        in page.partition('class="splats"')[2].partition("</table")[0]
    )


def _campaign(*times: tuple[float, int, int]) -> TestResult:
    history = tuple(
        Repetition(began, seed, rounds, overlaps)
        for seed, (began, rounds, overlaps) in enumerate(times)
    )
    return run_samples.result(
        f"selftests/races/test_a.py::test_{len(times)}",
        stdout="seed 1: 20 rounds, 19 overlapped\n",
        repetitions=len(times),
        history=history,
    )


def test_in_a_campaign_every_repetition_counts() -> None:
    run = run_samples.run(_campaign((60, 20, 19), (120, 30, 10)))
    (race,) = races([run])
    assert (race.rounds, race.overlaps) == (50, 29)
    assert met(run.tests[0].stdout) == (20, 19)


def test_a_campaign_is_drawn_over_time() -> None:
    run = run_samples.run(_campaign((60, 20, 19), (180, 30, 10)), _campaign((120, 5, 5)))
    assert time_series.points(run) == [
        time_series.Point(0.0, 20, 19),
        time_series.Point(1.0, 25, 24),
        time_series.Point(2.0, 55, 34),
    ]
    drawn = time_series.curves("base", run)
    assert drawn
    assert drawn.last == time_series.Point(2.0, 55, 34)
    assert drawn.rounds == "0.0,101.8 300.0,87.3 600.0,0.0"
    assert drawn.overlaps == "0.0,104.7 300.0,90.2 600.0,61.1"
    page = render([run], ())
    assert f'<polyline class="rounds" points="{drawn.rounds}"/>' in page
    assert "55 rounds</span> and" in page


def test_a_campaign_of_one_repetition_has_no_length() -> None:
    drawn = time_series.curves("base", run_samples.run(_campaign((60, 20, 10))))
    assert drawn
    assert (drawn.rounds, drawn.overlaps) == ("0.0,0.0", "0.0,80.0")


def test_without_a_campaign_there_is_nothing_to_draw() -> None:
    run = run_samples.run(run_samples.result(stdout="seed 1: 20 rounds, 19 overlapped\n"))
    assert time_series.curves("base", run) is None
    assert "over the time of the campaign" not in render([run], ())


def test_repetitions_survive_being_written_and_read() -> None:
    run = run_samples.run(_campaign((60.5, 20, 19)))
    assert Run.from_json(run.to_json()) == run
    values = run.to_json()
    values["tests"][0]["history"][0]["rounds"] = "many"
    with pytest.raises(TypeError, match="rounds"):
        Run.from_json(values)
