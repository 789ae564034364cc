# SPDX-License-Identifier: GPL-2.0-only
"""The ruleset of a router that offloads all established connections."""

from collections.abc import Sequence

from fixtures.guest.net import nftables
from fixtures.guest.topology.client_router_server import Router


def load_offload_ruleset(router: Router, devices: Sequence[str]) -> None:
    """Replace the router's ruleset by one with a flow table ``ft`` of some devices."""
    nftables.run(
        f"""
        flush ruleset
        table inet fw {{
            flowtable ft {{ hook ingress priority 0; devices = {{ {", ".join(devices)} }}; }}
            chain forward {{
                type filter hook forward priority 0; policy accept;
                meta l4proto {{ tcp, udp }} ct state established flow add @ft
            }}
        }}
        """,
        router.namespace,
    )
