# SPDX-License-Identifier: GPL-2.0-only
"""Parsing of kselftest output in each upstream format."""

import pytest

from fixtures.host.kselftest.result_parser import CaseResults, parse_output

NFT_FLOWTABLE = """\
PASS: flow offloaded for ns1/ns2
FAIL: file mismatch for ns1 -> ns2
-rw------- 1 root root 2097152 Jan 1 00:00 /tmp/tmp.yH1
PASS: dscp_ingress: dscp packet counters match
SKIP: Could not load netdev:egress for veth1
"""

HARNESS = """\
TAP version 13
1..3
# Starting 3 tests from 1 test cases.
#  RUN           conntrack_dump_flush.test_dump_by_zone ...
#            OK  conntrack_dump_flush.test_dump_by_zone
ok 1 conntrack_dump_flush.test_dump_by_zone
not ok 2 conntrack_dump_flush.test_flush_by_zone
ok 3 conntrack_dump_flush.test_flush_by_zone_default # SKIP no zones
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
"""

TDC = """\
 -- ns/SubPlugin.__init__
Test 696a: Add simple ct action
All test results:

1..2
ok 1 696a - Add simple ct action
not ok 2 e38c - Add simple ct action with cookie
ok 3 3b10 - Attach act_ct to an ingress qdisc # skipped - skipped - previous setup failed
"""


@pytest.mark.parametrize(
    ("output", "cases"),
    [
        (
            NFT_FLOWTABLE,
            CaseResults(
                2,
                ("file mismatch for ns1 -> ns2",),
                ("Could not load netdev:egress for veth1",),
            ),
        ),
        (
            HARNESS,
            CaseResults(
                1,
                ("conntrack_dump_flush.test_flush_by_zone",),
                ("conntrack_dump_flush.test_flush_by_zone_default",),
            ),
        ),
        (
            TDC,
            CaseResults(
                1,
                ("e38c - Add simple ct action with cookie",),
                ("3b10 - Attach act_ct to an ingress qdisc",),
            ),
        ),
        ("XFAIL: clash resolution for 127.0.0.1:9001 did not trigger\n", CaseResults(1)),
        ("OKAY is not a word\nPASSWORD: no\nokay 1 x\n", CaseResults()),
        ("", CaseResults()),
    ],
    ids=["script", "harness", "tdc", "xfail", "prose", "nothing"],
)
def test_each_output_format_is_parsed(output: str, cases: CaseResults) -> None:
    assert parse_output(output) == cases


def test_random_parts_are_removed_from_case_names() -> None:
    one = parse_output("FAIL: ns0-x7Yz0q cannot reach ns1-AbCdEf: counter 4211 exceeds 4096\n")
    other = parse_output("FAIL: ns0-ZZtop1 cannot reach ns1-000000: counter 99 exceeds 4096\n")
    assert one == other
    assert one.failed == ("ns0 cannot reach ns1: counter N exceeds N",)


def test_summary_lists_counts() -> None:
    assert parse_output(NFT_FLOWTABLE).summary == "2 passed, 1 failed, 1 skipped"
    assert parse_output("").summary == ""
