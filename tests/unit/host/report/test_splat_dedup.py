# SPDX-License-Identifier: GPL-2.0-only
"""Fingerprints of splats, and failures grouped by them."""

import pytest

from fixtures.host.model.results import TestResult, Verdict
from fixtures.host.report.html_report import render
from fixtures.host.report.splat_dedup import Fingerprint, fingerprint, group_splats
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

UNINITIALISED = """\
BUG: KMSAN: kernel-infoleak in instrument_copy_to_user+0x1/0x2 build
 instrument_copy_to_user+0x1/0x2
 _copy_to_user+0x1/0x2
 map_lookup_elem+0x1/0x2

Uninit was stored to memory at:
 flowmap_fill+0x1/0x2 [nf_flow_table_bpf_flowmap]
"""


def test_fingerprint_has_title_and_innermost_frames() -> None:
    assert fingerprint(ONE) == Fingerprint(
        "BUG: KASAN: slab-use-after-free in flowmap_lookup",
        ("flowmap_lookup", "bpf_map_copy_value", "__sys_bpf", "__x64_sys_bpf"),
    )


def test_fingerprint_ignores_addresses_numbers_and_locations() -> None:
    other = KASAN.format(
        size="70", address="0c000000", pid=9, line=215, caller="bpf_map_copy_value"
    )
    assert fingerprint(other) == fingerprint(ONE)
    one, two = (WARNED.format(line=at, cpu=at % 2, pid=at) for at in (7, 90))
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one) == Fingerprint("WARNING: at nf_flow_snoop_del", ("nf_flow_snoop_del",))


def test_another_caller_gives_another_fingerprint() -> None:
    other = KASAN.format(
        size="60", address="04a31c40", pid=412, line=212, caller="bpf_map_get_next"
    )
    assert fingerprint(other) != fingerprint(ONE)


def test_fingerprint_of_a_data_race_has_the_first_trace() -> None:
    assert fingerprint(RACE) == Fingerprint(
        "BUG: KCSAN: data-race in flow_offload_add / flow_offload_lookup",
        ("flow_offload_add", "nft_flow_offload_eval"),
    )


def test_fingerprint_of_uninitialised_memory_has_the_trace_of_its_use() -> None:
    assert fingerprint(UNINITIALISED).frames == (
        "instrument_copy_to_user",
        "_copy_to_user",
        "map_lookup_elem",
    )


@pytest.mark.parametrize("text", ["", "\n", "no trace at all"], ids=["empty", "newline", "text"])
def test_fingerprint_without_trace_has_the_title_only(text: str) -> None:
    assert fingerprint(text) == Fingerprint(text.strip(), ())


def _splat(nodeid: str, splat: str, seed: int) -> TestResult:
    return run_samples.result(
        f"selftests/races/test_a.py::{nodeid}",
        Verdict.SPLAT,
        splat=splat,
        seed=seed,
        replay=f"tox -e vm -- --seed {seed} {nodeid}",
    )


def test_splat_of_several_tests_is_listed_once_with_its_replay() -> None:
    run = run_samples.run(
        _splat("test_other", RACE, 1),
        _splat("test_x", ONE, 2),
        _splat("test_y", ONE.replace("412", "413"), 3),
        run_samples.result("selftests/races/test_a.py::test_plain", Verdict.FAILED, message="E no"),
    )
    found = group_splats([(run, test) for test in run.tests])
    assert [[test.seed for _, test in group.failures] for group in found] == [[2, 3], [1]]
    page = render([run], ())
    assert page.count("<td>BUG: KASAN: slab-use-after-free in flowmap_lookup<br>") == 1
    assert (
        "tox -e vm -- --seed 2 test_x"
        in page.partition('class="splats"')[2].partition("</table")[0]
    )
