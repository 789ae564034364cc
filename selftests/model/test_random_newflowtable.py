# SPDX-License-Identifier: GPL-2.0-only
"""Random NFT_MSG_NEWFLOWTABLE: the oracle's errno, and no trace of refused requests."""

from contextlib import ExitStack
from itertools import product

import pytest
from hypothesis import strategies as st

from fixtures.guest.kernel import modules
from fixtures.guest.net import flowtable, netlink, nftables, rtnetlink
from fixtures.guest.net.flowtable import COUNTER, INET, SNOOP
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.runtime.hypothesis_support import mostly_default
from selftests.model import newflowtable_oracle
from selftests.model.newflowtable_oracle import (
    EXISTING_DEVICES,
    MISSING_DEVICE,
    NETDEV,
    OVERLONG_NAME,
    FlowtableRequest,
    FlowtableState,
)

EXAMPLES = 50

TABLE, NAME, D1_OWNER = "t", "ft", "d1_owner"
_OMITTABLE_ATTRS = {
    "table": "NFTA_FLOWTABLE_TABLE",
    "name": "NFTA_FLOWTABLE_NAME",
    "hook": "NFTA_FLOWTABLE_HOOK",
    "flags": "NFTA_FLOWTABLE_FLAGS",
}


def _can_be_prepared(request: FlowtableRequest) -> bool:
    """Return whether the state that the request starts from can be created."""
    existing = request.existing
    if existing is None:
        return not (request.d1_taken and (request.table != "existing" or request.family == NETDEV))
    clash = request.d1_taken and "d1" in existing.devices and existing.flags != SNOOP
    return request.table == "existing" and request.family != NETDEV and not clash


DEVICES = [
    devices
    for length in (1, 2, 3)
    for devices in product([*EXISTING_DEVICES, MISSING_DEVICE, OVERLONG_NAME], repeat=length)
]
EXISTING = st.builds(
    FlowtableState,
    flags=st.sampled_from([0, COUNTER, SNOOP]),
    devices=st.sampled_from([(), ("d0",), ("d1",), ("d0", "d1"), (MISSING_DEVICE,)]),
    priority=st.sampled_from([0, 5]),
)
REQUESTS = st.builds(
    FlowtableRequest,
    family=mostly_default(INET, newflowtable_oracle.FAMILIES, 1),
    table=mostly_default("existing", ["new", "missing"], 4),
    existing=st.one_of(st.none(), EXISTING),
    d1_taken=st.booleans(),
    flags=mostly_default(SNOOP, newflowtable_oracle.FLAG_VALUES, 1),
    devices=mostly_default((), DEVICES, 1),
    priority=mostly_default(0, [5, -5, 0x7FFFFFFF, -0x80000000], 4),
    hook=mostly_default(0, [1, 0xFFFFFFFF], 6),
    exclusive=mostly_default(False, [True], 3),
    omitted_attr=mostly_default(None, _OMITTABLE_ATTRS, 6),
    counter_attr=mostly_default(None, newflowtable_oracle.COUNTER_ATTRS, 8),
    aborted=mostly_default(False, [True]),
).filter(_can_be_prepared)


def _prepare(request: FlowtableRequest, ns: str) -> None:
    """Create the table and the flowtables that exist before the request."""
    if request.table != "existing":
        return
    messages = [flowtable.new_table(request.family, TABLE)]
    if request.d1_taken:
        messages.append(flowtable.new_flowtable(request.family, TABLE, D1_OWNER, devices=["d1"]))
    if existing := request.existing:
        messages.append(
            flowtable.new_flowtable(
                request.family,
                TABLE,
                NAME,
                flags=existing.flags,
                devices=existing.devices,
                priority=existing.priority,
            )
        )
    flowtable.commit_batch(messages, ns)


def _commit_request(request: FlowtableRequest, ns: str) -> int:
    """Send the request's transaction; return the errno of its first refusal, or 0."""
    new_flowtable = flowtable.new_flowtable(
        request.family,
        TABLE,
        NAME,
        flags=request.flags,
        devices=request.devices,
        priority=request.priority,
        hook=request.hook,
        exclusive=request.exclusive,
    )
    new_flowtable["attrs"] = [
        attr
        for attr in new_flowtable["attrs"]
        if attr[0] != _OMITTABLE_ATTRS.get(request.omitted_attr or "")
    ]
    if request.counter_attr is not None:
        new_flowtable["attrs"].append((request.counter_attr, 0))
    messages = [new_flowtable]
    if request.table == "new":
        messages.insert(0, flowtable.new_table(request.family, TABLE))
    if request.aborted:
        messages.append(flowtable.delete_table(INET, "nowhere"))
    try:
        flowtable.commit_batch(messages, ns)
    except netlink.NetlinkError as error:
        return error.errno or -1
    return 0


def _current_state(ns: str) -> FlowtableState | None:
    """Return the flowtable that exists now, or None; check the owner of d1, too."""
    tables = {table.name: table for table in flowtable.list_flowtables(ns)}
    d1_owner = tables.pop(D1_OWNER, None)
    assert d1_owner is None or (d1_owner.flags, d1_owner.devices) == (0, ("d1",))
    current = tables.pop(NAME, None)
    assert not tables
    if current is None:
        return None
    snooping = current.flags & SNOOP
    assert (current.entries, current.missed) == ((0, 0) if snooping else (None, None))
    return FlowtableState(current.flags, tuple(sorted(current.devices)), current.priority)


@pytest.mark.clause("SN-1.1", "SN-1.3", "SN-1.4", "SN-1.7", "SN-1.8", "SN-5.5")
@pytest.mark.soak
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("flowtable_modules")
def test_random_newflowtable_returns_expected_errno(
    make_netns: MakeNetns, cleanup: ExitStack
) -> None:
    """Random NFT_MSG_NEWFLOWTABLE transactions have the oracle's errno and resulting flowtable.

    A refused transaction leaves the tables as they were before.
    """
    ns = make_netns("fm-fuzz")
    devices = [
        rtnetlink.add_dummy(name, 50 + number) for number, name in enumerate(EXISTING_DEVICES)
    ]
    netlink.transact(netlink.NETLINK_ROUTE, devices, ns)
    # No modprobe for each request of a family that has no flowtables.
    cleanup.enter_context(modules.autoload_disabled())

    def check(request: FlowtableRequest) -> None:
        try:
            _prepare(request, ns)
            tables_before = nftables.run("list tables", ns)
            expected = newflowtable_oracle.expected_errno(request)
            transaction_errno = expected or (2 if request.aborted else 0)

            assert _commit_request(request, ns) == transaction_errno

            assert _current_state(ns) == newflowtable_oracle.expected_state(request)
            if transaction_errno:
                assert nftables.run("list tables", ns) == tables_before
        finally:
            nftables.run("flush ruleset", ns)

    hypothesis_support.run_examples(check, EXAMPLES, request=REQUESTS)
