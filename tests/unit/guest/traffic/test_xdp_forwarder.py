# SPDX-License-Identifier: GPL-2.0-only
"""Result names match the XDP program's enum; rx_capture restores VLAN tags."""

import re
import socket
import struct

from fixtures.guest.traffic import rx_capture
from fixtures.guest.traffic.xdp_forwarder import PROGRAM, ForwardResult
from fixtures.host.util.paths import ROOT


def test_results_match_enum_of_program() -> None:
    source = (ROOT / f"selftests/bpf/{PROGRAM}.bpf.c").read_text()
    found = re.search(r"enum forward_result \{(.*?)\}", source, re.S)
    assert found
    words = re.sub(r"/\*.*?\*/", "", found[1])
    assert re.findall(r"\w+", words) == [result.name for result in ForwardResult]
    assert [*ForwardResult] == [*range(len(ForwardResult))]


def test_rx_capture_restores_vlan_tag() -> None:
    frame = bytes(range(12)) + b"\x08\x00payload"
    auxdata = rx_capture._AUXDATA.pack(0x51, 20, 20, 0, 0, 7, 0x88A8)
    control = [(rx_capture._SOL_PACKET, rx_capture._PACKET_AUXDATA, auxdata)]
    tagged = frame[:12] + struct.pack("!HH", 0x88A8, 7) + frame[12:]
    assert rx_capture._with_vlan_tag(frame, control) == tagged
    untagged = [(rx_capture._SOL_PACKET, rx_capture._PACKET_AUXDATA, bytes(len(auxdata)))]
    assert rx_capture._with_vlan_tag(frame, untagged) == frame
    assert rx_capture._with_vlan_tag(frame, [(socket.SOL_SOCKET, 1, b"")]) == frame
