# SPDX-License-Identifier: GPL-2.0-only
"""Random steps in the life of flows, tables, maps, namespaces and the module."""

import pytest

from fixtures.guest.runtime import hypothesis_support
from selftests.model.lifecycle_machine import LifecycleMachine

EXAMPLES, STEPS = 5, 20


@pytest.mark.clause(
    "SN-2.1",
    "SN-2.2",
    "SN-2.4",
    "SN-3.1",
    "SN-3.4",
    "SN-6.4",
    "SN-6.6",
    "SN-6.7",
    "SN-6.8",
    "SN-8.1",
    "SN-9.1",
    "SN-9.2",
    "SN-9.3",
    "FM-2.3",
    "FM-6.1",
    "FM-12.1",
    "MM-4.7",
    "MM-4.8",
    "MM-6.2",
)
@pytest.mark.soak
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("flowtable_modules")
def test_random_lifecycle_readers_match_model() -> None:
    """After every random step all readers of the kernel agree with the reference model."""
    hypothesis_support.run_state_machine(LifecycleMachine, EXAMPLES, STEPS)
