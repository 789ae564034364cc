# SPDX-License-Identifier: GPL-2.0-only
"""One pair of sockets in a flowtable of nft and in one of act_ct at the same time."""

from collections.abc import Callable

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, tc
from fixtures.guest.net.conntrack import ConntrackEntry
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import act_ct_offload
from fixtures.guest.traffic.act_ct_offload import DSCP_CS1, ZONE
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection

Remove = Callable[[Connection, Router], None]


def _delete_act_ct(_: Connection, router: Router) -> None:
    for device in ("r0", "r1"):
        tc.run(f"qdisc del dev {device} clsact", router.namespace)


# What removes the flow of one of the two tables, and what then removes the other's.
REMOVALS: dict[str, dict[str, Remove]] = {
    "conntrack-delete": {
        "nft": lambda conn, router: conntrack.delete(conn.tuple, router.namespace),
        "act-ct": lambda conn, router: conntrack.delete(conn.tuple, router.namespace, zone=ZONE),
    },
    "table-delete": {
        "nft": lambda _, router: flowtable.drop_table("fw", router.namespace),
        "act-ct": _delete_act_ct,
    },
}


@pytest.mark.clause("SN-10.2", "SN-10.5")
@pytest.mark.parametrize(
    ("removal", "protocol", "version"),
    [("conntrack-delete", IPPROTO_UDP, 4), ("table-delete", IPPROTO_TCP, 6)],
    ids=["conntrack-delete", "table-delete"],
)
@pytest.mark.parametrize("first", ["nft", "act-ct"], ids="remove-{}-first".format)
def test_connection_of_nft_and_act_ct_has_two_keys_until_each_ends(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    protocol: int,
    version: int,
    first: str,
    removal: str,
) -> None:
    """A flow of nft and one of act_ct with equal tuples: each is found by its own key and alone.

    Packets with a certain DSCP go through act_ct, which has them in a conntrack zone; act_ct's key
    has that zone and no device.  When one flow is removed, the other one is found as before.
    """
    namespace = private_router.namespace
    conn = open_private_connection(protocol, version)
    by_nft = conn.wait_offloaded()
    for device in ("r0", "r1"):
        tc.run(f"qdisc add dev {device} clsact", namespace)
    tc.add_act_ct(["r0", "r1"], ZONE, namespace, dscp=DSCP_CS1)
    conn.set_dscp(DSCP_CS1)
    keys = {"nft": list(by_nft.keys), "act-ct": act_ct_offload.wait_offloaded(conn)}
    later = make_flowmap(namespace)
    probe = LookupProbe(load_bpf("lookup_probe", later, "by_tc"), "by_tc")

    def assert_found(names: list[str], when: str) -> None:
        expected = sorted(bytes(key) for name in names for key in keys[name])
        for fd in (private_flowmap, later):
            assert sorted(map(bytes, bpf.iterate_keys(fd))) == expected, when
            for name, pair in keys.items():
                found = [bpf.lookup_or_none(fd, key) for key in pair]
                _assert_values(found, entries[name] if name in names else None, name, when)
        for name, pair in keys.items():
            found = [probe.lookup(key) for key in pair]
            _assert_values(found, entries[name] if name in names else None, name, when)

    entries: dict[str, ConntrackEntry | None] = {
        "nft": conntrack.find(conn.tuple, namespace),
        "act-ct": conntrack.find(conn.tuple, namespace, zone=ZONE),
    }
    assert all(entry is not None and entry.offloaded for entry in entries.values())
    assert_found(["nft", "act-ct"], "at first")
    left = "nft" if first == "act-ct" else "act-ct"
    for gone, names in ((first, [left]), (left, [])):
        REMOVALS[removal][gone](conn, private_router)
        if gone == "act-ct" and removal == "table-delete":
            # act_ct frees the table of a zone from a work item, after a grace period.
            count = len(names)
            wait_for(
                "act_ct to free its table",
                lambda: bpf.flowmap_entry_count(later) == count,  # noqa: B023
            )
        assert_found(names, f"after the removal of {gone}")


def _assert_values(
    found: list[uapi.Value | None], entry: ConntrackEntry | None, name: str, when: str
) -> None:
    """Require misses, or the values of a conntrack entry in both directions."""
    if entry is None:
        assert found == [None, None], f"{name} {when}"
        return
    for direction, value in enumerate(found):
        assert value is not None, f"{name} {when}"
        assert (value.dir, value.ct_id, value.ct_zone) == (direction, entry.ct_id, entry.zone)
        assert (value.xmit_type == uapi.XMIT_TC) == (name == "act-ct")
        assert bool(value.oifindex) == (name == "nft")
