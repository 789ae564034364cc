# SPDX-License-Identifier: GPL-2.0-only
"""Every pair of the contract's actors at once, and some triples (`selftests.races.actors`)."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import fault_injection, modules
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection, require_fault_injection
from fixtures.guest.race import python_race
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP
from selftests.races.actors import (
    ACTORS,
    PROGRAM,
    TRIPLES,
    RaceContext,
    allowed_outcomes,
    covered_pairs,
)

ROUNDS = 5
MIN_OVERLAPS = 3
"""Rounds in which the calls of all actors overlap; the race goes on until it has so many."""
UDP_TIMEOUT = "netfilter/nf_flowtable_udp_timeout"


@pytest.fixture
def race_context(
    request: pytest.FixtureRequest,
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
) -> RaceContext:
    """Offload a mirrored connection for each actor, and load the program if one runs it."""
    actor_names = request.node.callspec.params["actor_names"]
    conns = [
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + index)
        for index in range(len(actor_names))
    ]
    flows = [conn.wait_offloaded() for conn in conns]
    program = load_bpf(PROGRAM, private_flowmap) if "program_lookup" in actor_names else None
    return RaceContext(private_router, conns, flows, private_flowmap, program)


def _prepare(context: RaceContext, actor_names: Sequence[str], race_duration: ExitStack) -> None:
    """Set up what the actors need for the duration of the race.

    Args:
        context: its flow map is closed if an actor unloads the module.
        actor_names: the actors of this race.
        race_duration: undoes the settings after the race.

    Raises:
        pytest.skip.Exception: the kernel lacks what an actor needs.
    """
    if "alloc_failure" in actor_names:
        require_fault_injection()
        race_duration.enter_context(fault_injection.all_allocations_eligible())
    if "expiry" in actor_names:
        timeout_before = netns.get_sysctl(context.namespace, UDP_TIMEOUT)
        race_duration.callback(netns.set_sysctls, context.namespace, {UDP_TIMEOUT: timeout_before})
        netns.set_sysctls(context.namespace, {UDP_TIMEOUT: 0})
    if "unload_flowmap" in actor_names:
        race_duration.enter_context(modules.autoload_disabled())
        os.close(context.fd)
        modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


def _assert_mirroring_works(context: RaceContext) -> None:
    """Check that flows are offloaded, mirrored and deleted after the race as before it."""
    conntrack.flush(context.namespace)
    with bpf.open_flowmap(context.namespace) as fd:
        for conn in context.connections:
            flow = conn.wait_offloaded()
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
        conntrack.flush(context.namespace)
        wait_for("the map to be empty", lambda: not list(bpf.iterate_keys(fd)))


@pytest.mark.clause("RT-1.1", "RT-2.1", "RT-3.1")
@pytest.mark.soak
@pytest.mark.deadline(120)
@pytest.mark.parametrize("actor_names", [*covered_pairs(), *TRIPLES], ids="-".join)
def test_racing_actors_have_only_allowed_outcomes(
    race_context: RaceContext, actor_names: Sequence[str]
) -> None:
    """Racing actors have only allowed outcomes, and mirroring works afterwards."""
    with ExitStack() as race_duration:
        _prepare(race_context, actor_names, race_duration)
        actors = {
            f"{index} {actor_name}": ACTORS[actor_name](race_context, index)
            for index, actor_name in enumerate(actor_names)
        }
        report = python_race.run_until_overlap(
            actors, ROUNDS * hypothesis_support.iterations_scale(), overlaps=MIN_OVERLAPS
        )
    report.require_outcomes(
        {
            name: allowed_outcomes(actor_name, (*actor_names[:index], *actor_names[index + 1 :]))
            for index, (name, actor_name) in enumerate(zip(actors, actor_names, strict=True))
        },
        overlap=None,  # required above, over several races
    )
    _assert_mirroring_works(race_context)
