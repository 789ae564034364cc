# SPDX-License-Identifier: GPL-2.0-only
"""Passive flow maps (``BPF_FLOWMAP_PASSIVE``): a lookup by a program does not prolong the flow."""

import errno
import time
from functools import partial

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.core.polling import deadline_scale, wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

PROGRAMS = ["by_xdp", "by_tc", "by_cgroup", "by_socket"]
_SECOND = 10**9
# Seconds. The kernel refreshes a timeout only if that moves it by more than a second.
_REFRESH_GAP = 1.5
_SETTING = {IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp"}

each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
each_protocol = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])


@pytest.mark.clause("FM-1.4")
def test_map_extra_passive_is_reported(make_flowmap: MakeFlowmap) -> None:
    """A map reports the ``map_extra`` that it was created with: passive or not."""
    for extra in (0, uapi.PASSIVE):
        assert bpf.map_info(make_flowmap(map_extra=extra)).map_extra == extra


@pytest.mark.clause("FM-1.4", "MM-5.1")
@pytest.mark.parametrize("bit", [1, 2, 7, 31, 32, 63], ids="bit-{}".format)
def test_map_extra_unknown_bit_is_einval(flowmap_loaded: str, bit: int) -> None:
    """Any other bit of ``map_extra`` is refused with EINVAL, alone or with the passive bit."""
    for extra in (1 << bit, 1 << bit | uapi.PASSIVE):
        assert errno_of(partial(bpf.flowmap_create, map_extra=extra)) == errno.EINVAL
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.clause("FM-10.1", "FM-10.2", "FM-10.3")
@pytest.mark.parametrize("program", PROGRAMS)
def test_prog_lookup_in_passive_map_keeps_expiry(
    router: Router,
    make_flowmap: MakeFlowmap,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    program: str,
) -> None:
    """Lookups in a passive map leave the flow's expiry, in either direction; in another not.

    Both maps show the same expiry, which is the flow's.  The flows of both protocols and IP
    versions share the wait.
    """
    active = make_flowmap(router.namespace)
    passive = make_flowmap(router.namespace, map_extra=uapi.PASSIVE)
    flows = [
        open_connection(protocol, version, server_port=7000 + protocol + version).wait_offloaded()
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
        for version in (4, 6)
    ]
    observer = LookupProbe(load_bpf("lookup_probe", passive, program), program)
    user = LookupProbe(load_bpf("lookup_probe", active, program), program)
    for flow in flows:
        assert user.lookup(flow.original) is not None, flow.entry
    # The kernel computes the expiry once for each refresh and direction.
    before = [[bpf.lookup(active, key).expires for key in flow.keys] for flow in flows]

    # From here on no packet refreshes the flows.
    time.sleep(_REFRESH_GAP)
    for flow, expires in zip(flows, before, strict=True):
        seen = [observer.lookup(key) for key in flow.keys]
        assert [value and value.expires for value in seen] == expires, flow.entry
        for fd in (active, passive):
            assert [bpf.lookup(fd, key).expires for key in flow.keys] == expires, flow.entry

    for flow, expires in zip(flows, before, strict=True):
        assert user.lookup(flow.reply) is not None, flow.entry
        for fd in (active, passive):
            assert bpf.lookup(fd, flow.original).expires > expires[0] + _SECOND, flow.entry


@pytest.mark.clause("FM-10.3", "SN-6.3")
@pytest.mark.deadline(60)
@each_protocol
def test_flow_used_only_by_observer_expires(
    router: Router,
    make_flowmap: MakeFlowmap,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    protocol: int,
) -> None:
    """A flow that only programs with a passive map look up expires as if they did not exist."""
    seconds = max(2, round(deadline_scale()))
    setting = f"netfilter/nf_flowtable_{_SETTING[protocol]}_timeout"
    netns.set_sysctls(router.namespace, {setting: seconds})
    passive = make_flowmap(router.namespace, map_extra=uapi.PASSIVE)
    observer = LookupProbe(load_bpf("lookup_probe", passive, "by_xdp"), "by_xdp")
    flow = open_connection(protocol, 4).wait_offloaded()

    def expired() -> bool:
        return all(observer.lookup(key) is None for key in flow.keys)

    wait_for("the flow to expire under lookups", expired, seconds=4.0 * seconds)
    assert list(bpf.iterate_keys(passive)) == []


@pytest.mark.clause("FM-4.6", "SN-9.2")
@each_version
def test_passive_and_active_map_find_the_same(
    router: Router, make_flowmap: MakeFlowmap, open_connection: OpenConnection, version: int
) -> None:
    """A passive map has the same keys and values as another map."""
    maps = [make_flowmap(router.namespace, map_extra=extra) for extra in (0, uapi.PASSIVE)]
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        flow = open_connection(protocol, version, server_port=7000 + protocol).wait_offloaded()
        for key in flow.keys:
            first, second = (bytes(bpf.lookup(fd, key)) for fd in maps)
            assert first == second
    walks = [list(map(bytes, bpf.iterate_keys(fd))) for fd in maps]
    assert sorted(walks[0]) == sorted(walks[1])
    assert len(walks[0]) == 4
