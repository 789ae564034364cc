# SPDX-License-Identifier: GPL-2.0-only
"""What the forwarder's program counts is told under the right names; tags are where they were."""

import re
import socket
import struct

from fixtures.guest.traffic import rx_capture
from fixtures.guest.traffic.xdp_forwarder import PROGRAM, Fate
from fixtures.host.util.paths import ROOT


def test_fates_are_those_of_the_program() -> None:
    source = (ROOT / f"selftests/bpf/{PROGRAM}.bpf.c").read_text()
    found = re.search(r"enum fate \{(.*?)\}", source, re.S)
    assert found
    words = re.sub(r"/\*.*?\*/", "", found[1])
    assert re.findall(r"\w+", words) == [fate.name for fate in Fate]
    assert [*Fate] == [*range(len(Fate))]


def test_tag_beside_a_frame_is_put_back() -> None:
    frame = bytes(range(12)) + b"\x08\x00payload"
    told = rx_capture._AUXDATA.pack(0x51, 20, 20, 0, 0, 7, 0x88A8)
    control = [(rx_capture._SOL_PACKET, rx_capture._PACKET_AUXDATA, told)]
    tagged = frame[:12] + struct.pack("!HH", 0x88A8, 7) + frame[12:]
    assert rx_capture._tagged(frame, control) == tagged
    untagged = [(rx_capture._SOL_PACKET, rx_capture._PACKET_AUXDATA, bytes(len(told)))]
    assert rx_capture._tagged(frame, untagged) == frame
    assert rx_capture._tagged(frame, [(socket.SOL_SOCKET, 1, b"")]) == frame
