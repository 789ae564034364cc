# SPDX-License-Identifier: GPL-2.0-only
"""Splats as s390x and arm64 print them: one each, with its trace."""

import pytest

from fixtures.host.execution.splat_detection import find_splats

S390_OOPS = """\
[    3.100000][    T1] Unable to handle kernel pointer dereference in virtual kernel address space
[    3.100001][    T1] Failing address: 0000000000000000 TEID: 0000000000000483
[    3.100002][    T1] Fault in home space mode while using kernel ASCE.
[    3.100003][    T1] Oops: 0004 ilc:2 [#1]SMP
[    3.100004][    T1] Modules linked in: nf_flow_table
[    3.100005][    T1] Krnl PSW : 0704c00180000000 000003ffe0000000 (flow+0x10/0x20)
[    3.100006][    T1] Call Trace:
[    3.100007][    T1]  [<000003ffe0000000>] flow+0x10/0x20
[    3.100008][    T1] ---[ end trace 0000000000000000 ]---"""
S390_BUG = """\
[    3.100000][    T1] kernel BUG at net/netfilter/x.c:1!
[    3.100001][    T1] monitor event: 0040 ilc:2 [#1]SMP
[    3.100002][    T1] Call Trace:
[    3.100003][    T1] ---[ end trace 0000000000000000 ]---"""
S390_SPECIFICATION = """\
[    3.100000][    T1] specification exception: 0006 ilc:2 [#1]SMP
[    3.100001][    T1] Call Trace:
[    3.100002][    T1] ---[ end trace 0000000000000000 ]---"""
ARM64_OOPS = """\
[    3.100000][    T1] Unable to handle kernel NULL pointer dereference at virtual address 0
[    3.100001][    T1] Mem abort info:
[    3.100002][    T1] Internal error: Oops: 0000000096000004 [#1]  SMP
[    3.100003][    T1] pc : flow+0x10/0x20
[    3.100004][    T1] Call trace:
[    3.100005][    T1]  flow+0x10/0x20
[    3.100006][    T1] ---[ end trace 0000000000000000 ]---"""


@pytest.mark.parametrize(
    ("console", "title"),
    [
        (S390_OOPS, "Unable to handle kernel pointer"),
        (S390_BUG, "kernel BUG at net/netfilter/x.c:1!"),
        (S390_SPECIFICATION, "specification exception: 0006"),
        (ARM64_OOPS, "Unable to handle kernel NULL"),
    ],
    ids=["s390-oops", "s390-bug", "s390-specification", "arm64-oops"],
)
def test_report_is_one_splat_to_its_end(console: str, title: str) -> None:
    (splat,) = find_splats(console)
    assert splat.title.startswith(title)
    assert splat.text == console


def test_fault_of_a_user_process_is_no_splat() -> None:
    """s390 prints one for each segmentation fault, with ``ilc`` but without a number."""
    line = "[    3.1][   T1] User process fault: interruption code 0010 ilc:2 in x[1000+1]"
    assert find_splats(line) == []
