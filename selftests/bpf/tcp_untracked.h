/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP segments that the stack gets without being tracked here: first fragments, IP options,
 * IPv6 extension headers.  Their octets are acknowledged by packets that may well be forwarded,
 * so what was known of their direction is out of date.
 */
#ifndef UNSEEN_H
#define UNSEEN_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"
#include "packet_parse.h"
#include "tcp_window.h"

#define HOP_BY_HOP 0
#define ROUTING 43
#define IP_FRAGMENT_HEADER 44
#define DESTINATION 60
#define EXTENSIONS 4 /* as many headers are looked through */
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8

/* Where TCP begins in a packet of IPv6 with extension headers; 0 where there is none. */
static __always_inline __u32 behind_extensions(struct xdp_md *ctx, __u8 next, __u32 at)
{
	for (int i = 0; i < EXTENSIONS; i++) {
		__u8 header[4];

		if (next == IPPROTO_TCP)
			return at;
		if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION &&
		    next != IP_FRAGMENT_HEADER)
			return 0;
		if (bpf_xdp_load_bytes(ctx, at, header, sizeof(header)))
			return 0;
		if (next == IP_FRAGMENT_HEADER) {
			if ((header[2] << 8 | header[3]) & IP6_OFFSET)
				return 0;
			at += 8;
		} else {
			at += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	return next == IPPROTO_TCP ? at : 0;
}

/*
 * Forget the window of a segment that dissect() has refused.
 *
 * The key has the tags in it, and the place where IP begins, or 0.
 */
static __always_inline void window_unseen(struct xdp_md *ctx, struct flow_key *key,
					  const struct place *at)
{
	__be16 ports[2];
	__u8 version;
	__u32 l4;

	if (!at->l3 || bpf_xdp_load_bytes(ctx, at->l3, &version, sizeof(version)))
		return;
	if (version >> 4 == 4) {
		struct iphdr ip;

		if (bpf_xdp_load_bytes(ctx, at->l3, &ip, sizeof(ip)) ||
		    ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(IP_OFFSET))
			return;
		l4 = at->l3 + ip.ihl * 4;
		key->l3proto = AF_INET;
		key->src[0] = ip.saddr;
		key->dst[0] = ip.daddr;
	} else if (version >> 4 == 6) {
		struct ipv6hdr ip;

		if (bpf_xdp_load_bytes(ctx, at->l3, &ip, sizeof(ip)))
			return;
		l4 = behind_extensions(ctx, ip.nexthdr, at->l3 + sizeof(ip));
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
	window_missed(key);
}

#endif
