# SPDX-License-Identifier: GPL-2.0-only
"""Splats on a console, and lines that only look like one."""

import pytest

from fixtures.host.execution.splat_detection import find_splats, has_panic

WARN = """\
[   12.100000] lkdtm: Performing direct entry WARNING
[   12.200000] ------------[ cut here ]------------
[   12.300000] WARNING: CPU: 1 PID: 70 at drivers/misc/lkdtm/bugs.c:112 lkdtm_WARNING+0x1c/0x30
[   12.400000] Call Trace:
[   12.500000]  lkdtm_do_action+0x18/0x30
[   12.600000] ---[ end trace 0000000000000000 ]---
[   12.700000] all is well
"""


@pytest.mark.parametrize(
    "line",
    [
        "BUG: KASAN: slab-use-after-free in nf_flow_snoop_del+0x1/0x2",
        "BUG: KCSAN: data-race in flow_offload_add / flow_offload_lookup",
        "BUG: KMSAN: kernel-infoleak in instrument_copy_to_user include/linux/instrumented.h:131",
        "BUG: KMSAN: uninit-value in nf_flow_snoop_key_hash+0x1/0x2 [nf_flow_table]",
        "CFI failure at map_delete_elem+0x1/0x2 (target: flowmap_delete_elem+0x0/0x9;"
        " expected type: 0x0badf00d)",
        "CFI failure at flowmap_lookup_elem+0x1/0x2 (no target information)",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1",
        "BUG kmalloc-64 (Not tainted): Objects remaining on __kmem_cache_shutdown()",
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!",
        "Oops: general protection fault, probably for non-canonical address",
        "kernel BUG at lib/list_debug.c:29!",
        "WARNING: possible circular locking dependency detected",
        "WARNING: suspicious RCU usage",
        "INFO: task kworker/0:1:10 blocked for more than 10 seconds.",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [python3:70]",
        "watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0",
        "ODEBUG: free active (active state 0) object: 0 object type: work_struct",
        "refcount_t: underflow; use-after-free.",
        "UBSAN: array-index-out-of-bounds in net/netfilter/nf_flow_table_core.c:1",
        "list_del corruption. prev->next should be 0, but was 1",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "ref_tracker: netdev@ffff888004a31c40 has 1/2 users at",
        "unregister_netdevice: waiting for veth0 to become free. Usage count = 2",
        "Kernel panic - not syncing: sysrq triggered crash",
    ],
)
@pytest.mark.parametrize(
    "stamp",
    ["[    1.234567] ", "[    1.234567][  T70] ", "p   1.234567] "],
    ids=["stamp", "stamp-with-task", "damaged-stamp"],
)
def test_splat_line_is_found(stamp: str, line: str) -> None:
    assert [splat.title for splat in find_splats(stamp + line)] == [line]


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] virtme-ng-init: WARNING: none",
        "[    1.000000] Write protecting the kernel read-only data: 16384k",
        "WARNING: this line was not written by the kernel",
        "[    1.000000] flowmap: end of BUG: 1234",
        "BUG: a program's own words",
        "[    1.000000] sysrq: Show Blocked State",
        "[    1.000000] ref_tracker: memory allocation failure, unreliable refcount tracker.",
    ],
)
def test_other_line_is_no_splat(line: str) -> None:
    assert find_splats(line) == []


def test_splat_ends_at_end_marker() -> None:
    (splat,) = find_splats(WARN)
    assert splat.text.endswith("end trace 0000000000000000 ]---")
    assert "all is well" not in splat.text


def test_two_splats_are_two() -> None:
    assert len(find_splats(WARN + WARN)) == 2


def stamped(*lines: str, caller: str = "") -> str:
    """Return lines as the kernel prints them, with the trace that every report has."""
    return "".join(f"[    1.{number:06}]{caller} {line}\n" for number, line in enumerate(lines))


TRACE = ("CPU: 0 PID: 70 Comm: python3", "Call Trace:", " flow_offload_add+0x18/0x30", " </TASK>")
UBSAN = ("UBSAN: array-index-out-of-bounds in net/netfilter/nf_flow_table_core.c:1", *TRACE)
KASAN = ("BUG: KASAN: slab-use-after-free in flow_offload_lookup+0x1/0x2", *TRACE)
LOCKUP = ("watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [python3:70]", *TRACE)


def titles(console: str) -> list[str]:
    """Return the first line of each splat, without its prefix."""
    return [splat.title for splat in find_splats(console)]


@pytest.mark.parametrize(
    "between",
    [(), ("=" * 66,), ("------------[ cut here ]------------",), ("all is well",) * 30],
    ids=["nothing", "rule", "cut-here", "other-lines"],
)
@pytest.mark.parametrize("first", [UBSAN, KASAN, LOCKUP], ids=["ubsan", "kasan", "lockup"])
def test_splat_behind_one_without_end_marker_is_found(
    first: tuple[str, ...], between: tuple[str, ...]
) -> None:
    second = "BUG: KASAN: use-after-free in other+0x1/0x2"
    console = stamped(*first, *between, second, *TRACE)
    assert titles(console) == [first[0], second]
    assert "KASAN: use-after-free" not in find_splats(console)[0].text


@pytest.mark.parametrize(
    "headers",
    [
        ("BUG: kernel NULL pointer dereference, address: 0", "Oops: 0000 [#1] PREEMPT SMP"),
        ("kernel BUG at lib/list_debug.c:29!", "Oops: invalid opcode: 0000 [#1] SMP"),
        ("list_del corruption. prev->next should be 0", "kernel BUG at lib/list_debug.c:62!"),
        ("list_add corruption. next->prev", "WARNING: CPU: 0 PID: 70 at lib/list_debug.c:22"),
        ("refcount_t: underflow; use-after-free.", "WARNING: CPU: 0 PID: 70 at lib/refcount.c:28"),
        ("ODEBUG: free active", "WARNING: CPU: 0 PID: 70 at lib/debugobjects.c:514"),
        ("ref_tracker: netdev@1 has 1/2 users at", "ref_tracker: netdev@1 has 1/2 users at"),
        ("CFI failure at map_delete_elem+0x1/0x2", "WARNING: at map_delete_elem+0x1/0x2, CPU#0: a"),
        ("CFI failure at map_update_elem+0x1/0x2", "Oops: invalid opcode: 0000 [#1] SMP"),
    ],
    ids=lambda headers: headers[0].split(".")[0].replace(" ", "-"),
)
def test_lines_of_one_report_are_one_splat(headers: tuple[str, str]) -> None:
    console = stamped(headers[0], "#PF: error_code(0x0000)", headers[1], *TRACE)
    assert titles(console) == [headers[0]]
    # The next report of the same kind is another one.
    assert titles(console + console) == [headers[0]] * 2


def test_list_corruption_with_oops_is_one_splat() -> None:
    lines = ("list_del corruption. prev->next should be 0", "kernel BUG at lib/list_debug.c:62!")
    assert len(titles(stamped(*lines, "Oops: invalid opcode: 0000 [#1] SMP", *TRACE))) == 1


def test_report_of_kmsan_ends_at_its_rule() -> None:
    """KMSAN prints its traces without a heading, and several of them in one report."""
    report = (
        "BUG: KMSAN: uninit-value in flowmap_fill+0x1/0x2 [nf_flow_table_bpf_flowmap]",
        " flowmap_fill+0x1/0x2 [nf_flow_table_bpf_flowmap]",
        "",
        "Local variable value created at:",
        " flowmap_fill+0x1/0x2 [nf_flow_table_bpf_flowmap]",
        "",
        "CPU: 0 UID: 0 PID: 70 Comm: python3",
    )
    rule = "=" * 53
    console = stamped("before", rule, *report, rule, "after", rule, *report, rule)
    first, second = find_splats(console)
    assert first.title == second.title == report[0]
    assert first.text.endswith("Comm: python3")
    assert "after" not in first.text + second.text


def test_panic_behind_report_is_another_splat() -> None:
    panic = "Kernel panic - not syncing: hung_task: blocked tasks"
    hung = "INFO: task kworker/0:1:10 blocked for more than 10 seconds."
    assert titles(stamped(hung, *TRACE, panic)) == [hung, panic]


def test_reports_of_two_cpus_are_told_apart_by_caller() -> None:
    pairs = zip(
        stamped(*KASAN, caller="[   T70]").splitlines(),
        stamped(*UBSAN, caller="[   C1]").splitlines(),
        strict=True,
    )
    first, second = find_splats("\n".join(line for pair in pairs for line in pair))
    assert (first.title, second.title) == (KASAN[0], UBSAN[0])
    assert "C1" not in first.text
    assert "T70" not in second.text


def test_end_of_test_ends_splats_of_every_caller() -> None:
    end = stamped("flowmap: end of 0123abcd", "of the next test", caller="[   T9]")
    console = stamped(*KASAN, caller="[   T70]") + end + stamped("later", caller="[   T70]")
    (splat,) = find_splats(console)
    assert "later" not in splat.text


def test_line_without_prefix_belongs_to_line_before_it() -> None:
    console = stamped(KASAN[0], caller="[   T70]") + "a lost stamp\n" + stamped("x", caller="[C1]")
    (splat,) = find_splats(console)
    assert splat.text.endswith("a lost stamp")


def test_has_panic_finds_panic() -> None:
    assert has_panic("[    1.000000] Kernel panic - not syncing: Fatal exception")
    assert not has_panic(WARN)
