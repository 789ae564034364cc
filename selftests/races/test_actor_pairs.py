# SPDX-License-Identifier: GPL-2.0-only
"""Each pair of the contract's actors at one moment, and some threes (`selftests.races.actors`)."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import fault_injection, modules
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.fixtures import Connect, Load, require_faults
from fixtures.guest.race import python_race
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL
from selftests.races.actors import ACTORS, PROGRAM, THREES, Stage, answers, pairs

ROUNDS = 5
UDP_TIMEOUT = "netfilter/nf_flowtable_udp_timeout"


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
) -> Stage:
    """Connections that are offloaded and mirrored, and what the actors need besides."""
    kinds = request.node.callspec.params["kinds"]
    talks = [
        own_connection(UDP_PROTOCOL, 4, server_port=7000 + place) for place in range(len(kinds))
    ]
    flows = [talk.offloaded() for talk in talks]
    program = load(PROGRAM, own_flowmap) if "program_lookup" in kinds else None
    return Stage(own_router, talks, flows, own_flowmap, program)


def _prepare(stage: Stage, kinds: Sequence[str], during: ExitStack) -> None:
    """What has to be so while the actors are at work.

    Raises:
        pytest.skip.Exception: the kernel cannot do what one of them does.
    """
    if "failure" in kinds:
        require_faults()
        during.enter_context(fault_injection.enabled())
    if "expiry" in kinds:
        before = netns.get_sysctl(stage.namespace, UDP_TIMEOUT)
        during.callback(netns.set_sysctls, stage.namespace, {UDP_TIMEOUT: before})
        netns.set_sysctls(stage.namespace, {UDP_TIMEOUT: 0})
    if "unload" in kinds:
        during.enter_context(modules.autoload_disabled())
        os.close(stage.fd)
        modules.await_unreferenced(modules.FLOWMAP)


def _settled(stage: Stage) -> None:
    """After the race flows are offloaded and mirrored as before it, and end."""
    conntrack.flush(stage.namespace)
    with bpf.flowmap(stage.namespace) as fd:
        for talk in stage.talks:
            flow = talk.offloaded()
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
        conntrack.flush(stage.namespace)
        wait_for("the map to be empty", lambda: not list(bpf.keys(fd)))


@pytest.mark.clause("RT-1", "RT-2", "RT-3")
@pytest.mark.campaign
@pytest.mark.deadline(120)
@pytest.mark.parametrize("kinds", [*pairs(), *THREES], ids="-".join)
def test_actors_meet(stage: Stage, kinds: Sequence[str]) -> None:
    with ExitStack() as during:
        _prepare(stage, kinds, during)
        actors = {f"{place} {kind}": ACTORS[kind](stage, place) for place, kind in enumerate(kinds)}
        report = python_race.run(actors, ROUNDS * hypothesis_support.effort())
    report.require(
        {
            name: answers(kind, (*kinds[:place], *kinds[place + 1 :]))
            for place, (name, kind) in enumerate(zip(actors, kinds, strict=True))
        }
    )
    _settled(stage)
