# SPDX-License-Identifier: GPL-2.0-only
"""A kernel state that tests change one field of."""

from fixtures.guest.runtime.kernel_state import KernelState

BEFORE = KernelState(
    modules={"nf_flow_table": 0},
    namespaces=frozenset({"old"}),
    namespace_count=2,
    devices=frozenset({"lo"}),
    maps=frozenset({1}),
    programs=frozenset({5}),
    links=frozenset(),
    conntrack=3,
    cgroups={"cgroup": 1, "memory cgroup": 2},
    slabs={"nf_conntrack": 10},
)
