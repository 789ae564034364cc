# SPDX-License-Identifier: GPL-2.0-only
"""Source tables of different priorities on the same devices, and snoop tables of any priority."""

from itertools import permutations

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, nftables
from fixtures.guest.net.flowtable import INET, SNOOP
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

PRIORITIES = {"early": -10, "middle": 0, "late": 10}
_PORTS = {"early": 7100, "middle": 7200, "late": 7300}
_INT_MAX, _INT_MIN = (1 << 31) - 1, -(1 << 31)


def _add_source_table(name: str, namespace: str) -> None:
    port = _PORTS[name]
    nftables.run(
        f"""
        table inet {name} {{
            flowtable ft {{
                hook ingress priority {PRIORITIES[name]};
                devices = {{ r0, r1 }};
            }}
            chain forward {{
                type filter hook forward priority 0;
                th dport {port}-{port + 99} ct state established flow add @ft
                th sport {port}-{port + 99} ct state established flow add @ft
            }}
        }}
        """,
        namespace,
    )


@pytest.mark.clause("SN-2.2", "SN-6.7")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
@pytest.mark.parametrize("order", list(permutations(PRIORITIES))[::2], ids="-".join)
def test_flows_of_tables_of_several_priorities_are_mirrored(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    order: tuple[str, ...],
) -> None:
    """A map has the flows of tables of three priorities, and loses those of a deleted table.

    The tables are created in one order and deleted in the same one.
    """
    namespace = private_router.namespace
    for name in order:
        _add_source_table(name, namespace)
    flows: dict[str, list[Flow]] = {
        name: [
            open_private_connection(
                protocol, version, server_port=_PORTS[name] + version
            ).wait_offloaded()
            for protocol, version in ((IPPROTO_TCP, 4), (IPPROTO_UDP, 6))
        ]
        for name in PRIORITIES
    }
    left = list(PRIORITIES)
    for name in order:
        expected = sorted(bytes(key) for name in left for flow in flows[name] for key in flow.keys)
        assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == expected
        for owner in left:
            for flow in flows[owner]:
                found = [bpf.lookup(private_flowmap, key).dir for key in flow.keys]
                assert found == [0, 1], owner
        flowtable.drop_table(name, namespace)
        left.remove(name)
        for flow in flows[name]:
            found_after = [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys]
            assert found_after == [None, None], name
    assert list(bpf.iterate_keys(private_flowmap)) == []


@pytest.mark.clause("SN-5.1", "SN-9.1")
def test_snoop_table_of_any_priority_sees_flows_and_forwards_none(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """Snoop tables with the lowest and the highest priority mirror all flows; traffic goes on."""
    namespace = private_router.namespace
    priorities = (_INT_MIN, -1, 0, 1, _INT_MAX)
    messages = [flowtable.new_table(INET, "spies")]
    messages += [
        flowtable.new_flowtable(
            INET, "spies", f"spy{number}", flags=SNOOP, devices=["r0", "r1"], priority=priority
        )
        for number, priority in enumerate(priorities)
    ]
    flowtable.commit_batch(messages, namespace)
    for number, priority in enumerate(priorities):
        assert flowtable.get_flowtable("spies", f"spy{number}", namespace).priority == priority
    conn = open_private_connection(IPPROTO_TCP, 4)
    flow = conn.wait_offloaded()
    for _ in range(3):
        conn.exchange()
    assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]

    def counts() -> set[tuple[int, int]]:
        return {
            flowtable.snoop_counters("spies", f"spy{number}", namespace)
            for number in range(len(priorities))
        }

    wait_for("each snoop table to have the flow", lambda: counts() == {(1, 0)})
    conntrack.flush(namespace)
    wait_for("each snoop table to lose the flow", lambda: counts() == {(0, 0)})
