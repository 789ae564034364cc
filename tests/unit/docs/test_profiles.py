# SPDX-License-Identifier: GPL-2.0-only
"""docs/reference/profiles.md lists every profile."""

import re

from fixtures.host.config import vm_profile
from fixtures.host.util.paths import ROOT


def test_every_profile_is_listed() -> None:
    text = (ROOT / "docs/reference/profiles.md").read_text(encoding="utf-8")
    first_cells = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    listed = [name for cell in first_cells for name in re.findall(r"`([\w.-]+)`", cell)]
    assert sorted(listed) == vm_profile.profile_names()
