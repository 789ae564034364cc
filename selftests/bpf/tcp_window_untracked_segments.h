/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP segments that pass to the stack without window tracking: first fragments, packets with IP
 * options or IPv6 extension headers. Acknowledgements of their data may be forwarded by XDP, so
 * the window state of their direction becomes stale.
 */
#ifndef TCP_WINDOW_UNTRACKED_SEGMENTS_H
#define TCP_WINDOW_UNTRACKED_SEGMENTS_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"
#include "packet_parse.h"
#include "tcp_window.h"

#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_DEST 60
#define MAX_EXT_HEADERS 4
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8

/* Offset of the TCP header behind IPv6 extension headers; 0 if there is none. */
static __always_inline __u32 skip_ext_headers(struct xdp_md *ctx, __u8 next, __u32 off)
{
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		__u8 header[4];

		if (next == IPPROTO_TCP)
			return off;
		if (next != NEXTHDR_HOP && next != NEXTHDR_ROUTING && next != NEXTHDR_DEST &&
		    next != NEXTHDR_FRAGMENT)
			return 0;
		if (bpf_xdp_load_bytes(ctx, off, header, sizeof(header)))
			return 0;
		if (next == NEXTHDR_FRAGMENT) {
			if ((header[2] << 8 | header[3]) & IP6_OFFSET)
				return 0;
			off += 8;
		} else {
			off += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	return next == IPPROTO_TCP ? off : 0;
}

/*
 * Invalidate the window state of a segment that parse_packet() does not support.
 *
 * parse_packet() has filled in the VLAN tags in the key, and the offset of the IP header or 0.
 */
static __always_inline void window_untracked(struct xdp_md *ctx, struct flow_key *key,
					     const struct pkt_offsets *off)
{
	__be16 ports[2];
	__u8 version;
	__u32 l4;

	if (!off->l3 || bpf_xdp_load_bytes(ctx, off->l3, &version, sizeof(version)))
		return;
	if (version >> 4 == 4) {
		struct iphdr ip;

		if (bpf_xdp_load_bytes(ctx, off->l3, &ip, sizeof(ip)) ||
		    ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(IP_OFFSET))
			return;
		l4 = off->l3 + ip.ihl * 4;
		key->l3proto = AF_INET;
		key->src[0] = ip.saddr;
		key->dst[0] = ip.daddr;
	} else if (version >> 4 == 6) {
		struct ipv6hdr ip;

		if (bpf_xdp_load_bytes(ctx, off->l3, &ip, sizeof(ip)))
			return;
		l4 = skip_ext_headers(ctx, ip.nexthdr, off->l3 + sizeof(ip));
		if (!l4)
			return;
		key->l3proto = AF_INET6;
		__builtin_memcpy(key->src, &ip.saddr, sizeof(key->src));
		__builtin_memcpy(key->dst, &ip.daddr, sizeof(key->dst));
	} else {
		return;
	}
	if (bpf_xdp_load_bytes(ctx, l4, ports, sizeof(ports)))
		return;
	key->l4proto = IPPROTO_TCP;
	key->src_port = ports[0];
	key->dst_port = ports[1];
	key->iifindex = ctx->ingress_ifindex;
	window_invalidate(key);
}

#endif
