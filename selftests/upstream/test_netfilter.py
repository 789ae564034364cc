# SPDX-License-Identifier: GPL-2.0-only
"""Flow tables, NAT and conntrack by their authors' scripts: net/netfilter of the selftests."""

from dataclasses import dataclass

import pytest

from fixtures.guest.runtime import kselftest_runner

_MARGIN = 20  # seconds between a script's own deadline and the test's


@dataclass(frozen=True)
class Script:
    """A script and how it is called.

    Attributes:
        seconds: how long it may take, before scaling.
        environment: the knobs that the script itself has.
    """

    name: str
    seconds: float
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, *self.arguments))


SCRIPTS = (
    # Without arguments the script calls itself again with MTUs and a file size drawn by
    # lot, which two kernels cannot be compared by: hence its defaults, and a second set.
    Script("nft_flowtable.sh", 200, ("-o", "9000", "-l", "1500", "-r", "2000")),
    Script("nft_flowtable.sh", 200, ("-o", "12000", "-l", "3000", "-r", "5000", "-s", "1000000")),
    Script("nft_nat.sh", 200),
    Script("nft_nat_zones.sh", 200),
    # The traffic and the renaming go on for 8/10 of this.
    Script("nft_interface_stress.sh", 100, environment=(("kselftest_timeout", "30"),)),
    Script("nft_offload.sh", 100),
    Script("conntrack_clash.sh", 100),
    Script("conntrack_dump_flush.sh", 100),
    Script("conntrack_icmp_related.sh", 100),
    Script("conntrack_ipip_mtu.sh", 100),
    Script("conntrack_resize.sh", 200),
    Script("conntrack_reverse_clash.sh", 100),
    Script("conntrack_sctp_collision.sh", 100),
    Script("conntrack_tcp_unreplied.sh", 100),
    Script("conntrack_vrf.sh", 100),
)


@pytest.mark.clause("UP-1")
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=str(script), marks=pytest.mark.deadline(script.seconds + _MARGIN))
        for script in SCRIPTS
    ],
)
def test_script(script: Script) -> None:
    kselftest_runner.run(
        "net/netfilter",
        (f"./{script.name}", *script.arguments),
        script.seconds,
        dict(script.environment),
    )
