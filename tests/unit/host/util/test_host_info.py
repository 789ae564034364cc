# SPDX-License-Identifier: GPL-2.0-only
"""The identity of a host's CPU: model and features, not what changes from minute to minute."""

from pathlib import Path

from fixtures.host.util.host_info import cpu_identity

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R)
stepping\t: 7
cpu MHz\t\t: {mhz}
flags\t\t: fpu avx512f{more}

processor\t: 1
flags\t\t: other
"""


def test_cpu_identity_depends_on_features_only(tmp_path: Path) -> None:
    identities = []
    for mhz, more in (("2000", ""), ("3000", ""), ("2000", " amx_tile")):
        (tmp_path / "cpuinfo").write_text(CPUINFO.format(mhz=mhz, more=more))
        identities.append(cpu_identity(tmp_path / "cpuinfo"))
    assert identities[0] == identities[1] != identities[2]
    assert "model=85" in identities[0]
    assert "other" not in identities[0]
