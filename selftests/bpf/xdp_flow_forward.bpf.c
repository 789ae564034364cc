// SPDX-License-Identifier: GPL-2.0-only
/*
 * Forward what the flow map knows, by the value alone: nothing else is asked.  Whatever it
 * cannot do, or is not to decide, goes up to the stack as it came.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"
#include "packet_parse.h"
#include "nat_rewrite.h"
#include "tcp_untracked.h"
#include "tcp_window.h"

#define XMIT_NEIGH 1
#define XMIT_DIRECT 3

/* What became of a packet; in the order of fixtures/guest/traffic/xdp_forwarder.py. */
enum fate {
	FORWARDED,
	NOT_TCP_OR_UDP,
	FRAGMENT,
	OPTIONS,
	NO_FLOW,
	EXPIRES, /* TTL or hop limit */
	TOO_LARGE,
	CONTROL, /* SYN, FIN, RST: the stack keeps the connection's state */
	NO_NEIGHBOUR,
	OTHER_WAY, /* IPsec, a tunnel, PPPoE */
	MALFORMED,
	BAD_FLAGS, /* dropped */
	OUT_OF_WINDOW, /* dropped */
};

static __always_inline int up(enum fate why)
{
	count(why);
	return XDP_PASS;
}

static __always_inline int drop(enum fate why)
{
	count(why);
	return XDP_DROP;
}

/* What TCP's header says: a fate other than FORWARDED ends the packet's way here. */
static __always_inline enum fate track(struct xdp_md *ctx, const struct flow_key *key,
				       const struct flow_value *value, const struct place *at,
				       __u32 size)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + at->l4;
	__u32 header, seq, after;

	if ((void *)(tcp + 1) > end)
		return MALFORMED;
	header = tcp->doff * 4;
	after = at->l3 + size;
	if (header < sizeof(*tcp) || at->l4 + header > after)
		return MALFORMED;
	if (tcp->syn) {
		window_begin(ctx, key, at->l4 + sizeof(*tcp), at->l4 + header);
		return CONTROL;
	}
	if (!value) {
		window_missed(key);
		return NO_FLOW;
	}
	if (tcp->rst)
		return CONTROL;
	if (!tcp->ack)
		return BAD_FLAGS;
	/* A FIN is the stack's to judge, but it is acknowledged, and that may come by here. */
	seq = bpf_ntohl(tcp->seq);
	if (!window_admits(key, value, seq, seq + after - at->l4 - header + tcp->fin,
			   bpf_ntohl(tcp->ack_seq), bpf_ntohs(tcp->window)) && !tcp->fin)
		return OUT_OF_WINDOW;
	return tcp->fin ? CONTROL : FORWARDED;
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
	struct place at = {};
	enum parsed found;
	enum fate fate;
	__u32 size, tags;
	__u8 ttl = 0;

	found = dissect(ctx, &key, &at);
	if (found != SERVED) {
		window_unseen(ctx, &key, &at);
		return up(found == IS_FRAGMENT ? FRAGMENT :
			  found == HAS_OPTIONS ? OPTIONS : NOT_TCP_OR_UDP);
	}
	size = length(ctx, &at, key.l3proto, &ttl);
	if (!size)
		return up(MALFORMED);

	value = bpf_map_lookup_elem(&flows, &key);
	if (key.l4proto == IPPROTO_TCP) {
		fate = track(ctx, &key, value, &at, size);
		if (fate == BAD_FLAGS || fate == OUT_OF_WINDOW)
			return drop(fate);
		if (fate != FORWARDED)
			return up(fate);
	}
	if (!value)
		return up(NO_FLOW);

	if (ttl <= 1)
		return up(EXPIRES);
	if (size > value->mtu)
		return up(TOO_LARGE);
	if ((value->xmit_type != XMIT_NEIGH && value->xmit_type != XMIT_DIRECT) ||
	    value->tun_l4proto)
		return up(OTHER_WAY);
	tags = !!value->encap[0].proto + !!value->encap[1].proto;
	if ((tags > 0 && !is_tag(value->encap[0].proto)) ||
	    (tags > 1 && !is_tag(value->encap[1].proto)))
		return up(OTHER_WAY);
	if (!(value->h_dest[0] | value->h_dest[1] | value->h_dest[2] | value->h_dest[3] |
	      value->h_dest[4] | value->h_dest[5]))
		return up(NO_NEIGHBOUR);

	/* From here on the packet is not what it was, and the stack is not to see it. */
	if (!rewrite(ctx, &key, value, &at) ||
	    (tags != at.tags && bpf_xdp_adjust_head(ctx, (int)(at.tags - tags) * TAG)) ||
	    !dress(ctx, &key, value, tags))
		return drop(MALFORMED);
	count(FORWARDED);
	return bpf_redirect(value->oifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
