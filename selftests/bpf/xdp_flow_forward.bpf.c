// SPDX-License-Identifier: GPL-2.0-only
/*
 * Forward packets of flows in the flow map, using only the flow map value: no FIB lookup, no other
 * map. Packets that the program cannot forward, or must leave to the stack, pass to the stack
 * unchanged.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"
#include "packet_parse.h"
#include "packet_rewrite.h"
#include "tcp_window_untracked_segments.h"
#include "tcp_window.h"

#define XMIT_NEIGH 1
#define XMIT_DIRECT 3

/* What happened to a packet; same order as in fixtures/guest/traffic/xdp_forwarder.py. */
enum forward_result {
	FORWARDED,
	NOT_TCP_OR_UDP,
	FRAGMENT,
	IP_OPTIONS,
	NO_FLOW,
	TTL_EXPIRES, /* or the hop limit */
	TOO_LARGE,
	TCP_CONTROL, /* SYN, FIN, RST: the stack tracks the connection's state */
	NO_NEIGHBOUR,
	OTHER_XMIT, /* IPsec, a tunnel, PPPoE */
	MALFORMED,
	BAD_TCP_FLAGS, /* dropped */
	OUT_OF_WINDOW, /* dropped */
};

static __always_inline int pass_to_stack(enum forward_result reason)
{
	count(reason);
	return XDP_PASS;
}

static __always_inline int drop(enum forward_result reason)
{
	count(reason);
	return XDP_DROP;
}

/* Check and track the TCP header; a result other than FORWARDED means not to forward the packet. */
static __always_inline enum forward_result track_tcp(struct xdp_md *ctx, const struct flow_key *key,
						     const struct flow_value *value,
						     const struct pkt_offsets *off, __u32 size)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + off->l4;
	__u32 header, seq, pkt_end;

	if ((void *)(tcp + 1) > end)
		return MALFORMED;
	header = tcp->doff * 4;
	pkt_end = off->l3 + size;
	if (header < sizeof(*tcp) || off->l4 + header > pkt_end)
		return MALFORMED;
	if (tcp->syn) {
		window_syn(ctx, key, off->l4 + sizeof(*tcp), off->l4 + header);
		return TCP_CONTROL;
	}
	if (!value) {
		window_invalidate(key);
		return NO_FLOW;
	}
	if (tcp->rst)
		return TCP_CONTROL;
	if (!tcp->ack)
		return BAD_TCP_FLAGS;
	/* The stack handles a FIN. Track it anyway: XDP may see its acknowledgement. */
	seq = bpf_ntohl(tcp->seq);
	if (!window_admits(key, value, seq, seq + pkt_end - off->l4 - header + tcp->fin,
			   bpf_ntohl(tcp->ack_seq), bpf_ntohs(tcp->window)) && !tcp->fin)
		return OUT_OF_WINDOW;
	return tcp->fin ? TCP_CONTROL : FORWARDED;
}

static __always_inline bool is_tag(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
}

SEC("xdp")
int xdp_flow_forward(struct xdp_md *ctx)
{
	struct flow_value *value;
	struct flow_key key = {};
	struct pkt_offsets off = {};
	enum forward_result result;
	enum parse_result parsed;
	__u32 size, tags;

	parsed = parse_packet(ctx, &key, &off);
	if (parsed != PARSE_OK) {
		window_untracked(ctx, &key, &off);
		return pass_to_stack(parsed == PARSE_FRAGMENT ? FRAGMENT :
				     parsed == PARSE_IP_OPTIONS ? IP_OPTIONS : NOT_TCP_OR_UDP);
	}
	size = ip_length(ctx, &off);
	if (!size)
		return pass_to_stack(MALFORMED);

	value = bpf_map_lookup_elem(&flows, &key);
	if (key.l4proto == IPPROTO_TCP) {
		result = track_tcp(ctx, &key, value, &off, size);
		if (result == BAD_TCP_FLAGS || result == OUT_OF_WINDOW)
			return drop(result);
		if (result != FORWARDED)
			return pass_to_stack(result);
	}
	if (!value)
		return pass_to_stack(NO_FLOW);

	if (off.ttl <= 1)
		return pass_to_stack(TTL_EXPIRES);
	if (size > value->mtu)
		return pass_to_stack(TOO_LARGE);
	if ((value->xmit_type != XMIT_NEIGH && value->xmit_type != XMIT_DIRECT) ||
	    value->tun_l4proto)
		return pass_to_stack(OTHER_XMIT);
	tags = !!value->encap[0].proto;
	if (tags) {
		tags += !!value->encap[1].proto;
		if (!is_tag(value->encap[0].proto) ||
		    (tags > 1 && !is_tag(value->encap[1].proto)))
			return pass_to_stack(OTHER_XMIT);
	}
	if (!(*(__u32 *)value->h_dest | *(__u16 *)&value->h_dest[4]))
		return pass_to_stack(NO_NEIGHBOUR);

	/* The packet changes from here on, so it must not pass to the stack any more. */
	if (!rewrite_l3_l4(ctx, &key, value, &off) ||
	    (tags != off.tags && bpf_xdp_adjust_head(ctx, (int)(off.tags - tags) * VLAN_TAG_LEN)) ||
	    !write_l2_header(ctx, &key, value, tags, off.tags))
		return drop(MALFORMED);
	count(FORWARDED);
	return bpf_redirect(value->oifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
