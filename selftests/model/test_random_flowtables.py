# SPDX-License-Identifier: GPL-2.0-only
"""Random NFT_MSG_NEWFLOWTABLE: the errno of the model, and after a refusal nothing is there."""

from contextlib import ExitStack
from itertools import product

import pytest
from hypothesis import strategies as st

from fixtures.guest.kernel import modules
from fixtures.guest.net import flowtable, netlink, nftables, rtnetlink
from fixtures.guest.net.flowtable import COUNTER, INET, SNOOP
from fixtures.guest.pytest_plugin.fixtures import Namespaces
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.runtime.hypothesis_support import mostly
from selftests.model import flowtable_oracle
from selftests.model.flowtable_oracle import ABSENT, LONG, NETDEV, PRESENT, Known, Request

EXAMPLES = 50

TABLE, NAME, RIVAL = "t", "ft", "rival"
_LACKS = {
    "table": "NFTA_FLOWTABLE_TABLE",
    "name": "NFTA_FLOWTABLE_NAME",
    "hook": "NFTA_FLOWTABLE_HOOK",
    "flags": "NFTA_FLOWTABLE_FLAGS",
}


def _possible(request: Request) -> bool:
    """Whether what is to be there before can be there."""
    known = request.before
    if known is None:
        return not (request.rival and (request.table != "made" or request.family == NETDEV))
    clash = request.rival and "d1" in known.devices and known.flags != SNOOP
    return request.table == "made" and request.family != NETDEV and not clash


DEVICES = [
    listed for length in (1, 2, 3) for listed in product([*PRESENT, ABSENT, LONG], repeat=length)
]
BEFORE = st.builds(
    Known,
    flags=st.sampled_from([0, COUNTER, SNOOP]),
    devices=st.sampled_from([(), ("d0",), ("d1",), ("d0", "d1"), (ABSENT,)]),
    priority=st.sampled_from([0, 5]),
)
REQUESTS = st.builds(
    Request,
    family=mostly(INET, flowtable_oracle.FAMILIES, 1),
    table=mostly("made", ["new", "missing"], 4),
    before=st.one_of(st.none(), BEFORE),
    rival=st.booleans(),
    flags=mostly(SNOOP, flowtable_oracle.FLAGS, 1),
    devices=mostly((), DEVICES, 1),
    priority=mostly(0, [5, -5, 0x7FFFFFFF, -0x80000000], 4),
    hook=mostly(0, [1, 0xFFFFFFFF], 6),
    exclusive=mostly(False, [True], 3),
    lacks=mostly(None, _LACKS, 6),
    aborted=mostly(False, [True]),
).filter(_possible)


def _prepare(request: Request, inside: str) -> None:
    if request.table != "made":
        return
    messages = [flowtable.new_table(request.family, TABLE)]
    if request.rival:
        messages.append(flowtable.new_flowtable(request.family, TABLE, RIVAL, devices=["d1"]))
    if known := request.before:
        messages.append(
            flowtable.new_flowtable(
                request.family,
                TABLE,
                NAME,
                flags=known.flags,
                devices=known.devices,
                priority=known.priority,
            )
        )
    flowtable.commit(messages, inside)


def _ask(request: Request, inside: str) -> int:
    """Send the request's transaction; the errno of its first refusal, or 0."""
    asked = flowtable.new_flowtable(
        request.family,
        TABLE,
        NAME,
        flags=request.flags,
        devices=request.devices,
        priority=request.priority,
        hook=request.hook,
        exclusive=request.exclusive,
    )
    asked["attrs"] = [attr for attr in asked["attrs"] if attr[0] != _LACKS.get(request.lacks or "")]
    messages = [asked]
    if request.table == "new":
        messages.insert(0, flowtable.new_table(request.family, TABLE))
    if request.aborted:
        messages.append(flowtable.delete_table(INET, "nowhere"))
    try:
        flowtable.commit(messages, inside)
    except netlink.NetlinkError as error:
        return error.errno or -1
    return 0


def _found(inside: str) -> Known | None:
    """The flow table that is there now; the rival is looked at, too."""
    tables = {table.name: table for table in flowtable.flowtables(inside)}
    rival = tables.pop(RIVAL, None)
    assert rival is None or (rival.flags, rival.devices) == (0, ("d1",))
    found = tables.pop(NAME, None)
    assert not tables
    if found is None:
        return None
    snooping = found.flags & SNOOP
    assert (found.entries, found.missed) == ((0, 0) if snooping else (None, None))
    return Known(found.flags, tuple(sorted(found.devices)), found.priority)


@pytest.mark.clause("SN-1", "SN-5")
@pytest.mark.campaign
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("flowtable_modules")
def test_any_flow_table_has_the_errno_of_the_model(
    namespace: Namespaces, cleanup: ExitStack
) -> None:
    inside = namespace("fm-fuzz")
    devices = [rtnetlink.dummy(name, 50 + number) for number, name in enumerate(PRESENT)]
    netlink.transact(netlink.NETLINK_ROUTE, devices, inside)
    # Which module would bring flow tables to a family that has none is not asked each time.
    cleanup.enter_context(modules.autoload_disabled())

    def attempt(request: Request) -> None:
        try:
            _prepare(request, inside)
            there = nftables.run("list tables", inside)
            expected = flowtable_oracle.answer(request)
            refused = expected or (2 if request.aborted else 0)

            assert _ask(request, inside) == refused

            assert _found(inside) == flowtable_oracle.after(request)
            if refused:
                assert nftables.run("list tables", inside) == there
        finally:
            nftables.run("flush ruleset", inside)

    hypothesis_support.explore(attempt, EXAMPLES, request=REQUESTS)
