# SPDX-License-Identifier: GPL-2.0-only
"""Random steps in the life of flows, tables, maps, namespaces and the module."""

import pytest

from fixtures.guest.runtime import hypothesis_support
from selftests.model.lifecycle_machine import LifecycleMachine

EXAMPLES, STEPS = 5, 20


@pytest.mark.clause("SN-2", "SN-3", "SN-6", "SN-8", "SN-9", "FM-2", "FM-6", "FM-12", "MM-4", "MM-6")
@pytest.mark.soak
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("flowtable_modules")
def test_random_lifecycle_readers_match_model() -> None:
    """After every random step all readers of the kernel agree with the reference model."""
    hypothesis_support.run_state_machine(LifecycleMachine, EXAMPLES, STEPS)
