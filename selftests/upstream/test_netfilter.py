# SPDX-License-Identifier: GPL-2.0-only
"""Kernel selftests of flowtables, NAT and conntrack: scripts of net/netfilter."""

from dataclasses import dataclass

import pytest

from fixtures.guest.runtime import kselftest_runner

_DEADLINE_MARGIN = 20  # seconds from the script's timeout to the test's deadline


@dataclass(frozen=True)
class Script:
    """A kernel selftest script and its invocation.

    Attributes:
        timeout: seconds that the script may take, before scaling.
        environment: variables that the script itself reads.
    """

    name: str
    timeout: float
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The parameter id: name and arguments without spaces."""
        return "".join((self.name, *self.arguments))


SCRIPTS = (
    # Without arguments the script draws random MTUs and file sizes, and two kernels could not
    # be compared. So it gets its default values, and a second set of values.
    Script("nft_flowtable.sh", 200, ("-o", "9000", "-l", "1500", "-r", "2000")),
    Script("nft_flowtable.sh", 200, ("-o", "12000", "-l", "3000", "-r", "5000", "-s", "1000000")),
    Script("nft_nat.sh", 200),
    Script("nft_nat_zones.sh", 200),
    # The script sends traffic and renames devices for 8/10 of kselftest_timeout.
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


@pytest.mark.clause("UP-1.1")
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            script, id=str(script), marks=pytest.mark.deadline(script.timeout + _DEADLINE_MARGIN)
        )
        for script in SCRIPTS
    ],
)
def test_netfilter_script_passes(script: Script) -> None:
    """A script of the kernel tree's net/netfilter selftests passes."""
    kselftest_runner.run_kselftest(
        "net/netfilter",
        (f"./{script.name}", *script.arguments),
        script.timeout,
        dict(script.environment),
    )
