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
#include "packet.h"
#include "window.h"

#define XMIT_NEIGH 1
#define XMIT_DIRECT 3
#define TAG 4

/* What became of a packet; in the order of fixtures/guest/forwarder.py. */
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

/* The parts of a packet that translation changes, as checksums see them. */
struct tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
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

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1624: the checksum of a text of which a part has changed. */
static __always_inline __u16 changed(__u16 check, void *from, void *to, __u32 size)
{
	return ~folded(bpf_csum_diff(from, size, to, size, (__u16)~check));
}

/* The packet's length by its own account; 0 where that is more than there is. */
static __always_inline __u32 length(struct xdp_md *ctx, const struct place *at, __u8 family,
				    __u8 *ttl)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 told;

	if (family == AF_INET) {
		struct iphdr *ip = data + at->l3;

		if ((void *)(ip + 1) > end)
			return 0;
		told = bpf_ntohs(ip->tot_len);
		*ttl = ip->ttl;
	} else {
		struct ipv6hdr *ip = data + at->l3;

		if ((void *)(ip + 1) > end)
			return 0;
		told = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		*ttl = ip->hop_limit;
	}
	return at->l3 + told > end - data ? 0 : told;
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

/* Addresses, ports, TTL and checksums; false where the packet is too short after all. */
static __always_inline bool rewrite(struct xdp_md *ctx, const struct flow_key *key,
				    const struct flow_value *value, const struct place *at)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tuple from = {}, to = {};
	__be16 *ports = data + at->l4;
	__sum16 *check;

	if (key->l4proto == IPPROTO_TCP)
		check = data + at->l4 + offsetof(struct tcphdr, check);
	else
		check = data + at->l4 + offsetof(struct udphdr, check);
	if ((void *)(ports + 2) > end || (void *)(check + 1) > end)
		return false;

	__builtin_memcpy(from.src, key->src, sizeof(from.src));
	__builtin_memcpy(from.dst, key->dst, sizeof(from.dst));
	from.src_port = key->src_port;
	from.dst_port = key->dst_port;
	__builtin_memcpy(to.src, value->src, sizeof(to.src));
	__builtin_memcpy(to.dst, value->dst, sizeof(to.dst));
	to.src_port = value->src_port;
	to.dst_port = value->dst_port;

	if (key->l3proto == AF_INET) {
		struct iphdr *ip = data + at->l3, old;

		if ((void *)(ip + 1) > end)
			return false;
		old = *ip;
		ip->ttl--;
		ip->saddr = to.src[0];
		ip->daddr = to.dst[0];
		ip->check = changed(old.check, &old, ip, sizeof(old));
	} else {
		struct ipv6hdr *ip = data + at->l3;

		if ((void *)(ip + 1) > end)
			return false;
		ip->hop_limit--;
		__builtin_memcpy(&ip->saddr, to.src, sizeof(to.src));
		__builtin_memcpy(&ip->daddr, to.dst, sizeof(to.dst));
	}

	ports[0] = to.src_port;
	ports[1] = to.dst_port;
	/* A datagram without a checksum stays without; one whose checksum is zero says so. */
	if (key->l4proto == IPPROTO_TCP)
		*check = changed(*check, &from, &to, sizeof(from));
	else if (*check)
		*check = changed(*check, &from, &to, sizeof(from)) ?: 0xffff;
	return true;
}

/* Ethernet and the tags that the packet leaves with, on a head of the right size. */
static __always_inline bool dress(struct xdp_md *ctx, const struct flow_key *key,
				  const struct flow_value *value, __u32 tags)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__be16 inner = bpf_htons(key->l3proto == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	__be16 *next = (void *)(eth + 1);

	if ((void *)next > end)
		return false;
	__builtin_memcpy(eth->h_source, value->h_source, sizeof(eth->h_source));
	__builtin_memcpy(eth->h_dest, value->h_dest, sizeof(eth->h_dest));
	eth->h_proto = tags ? value->encap[0].proto : inner;
	if (tags) {
		if ((void *)(next + 2) > end)
			return false;
		next[0] = value->encap[0].id;
		next[1] = tags > 1 ? value->encap[1].proto : inner;
	}
	if (tags > 1) {
		if ((void *)(next + 4) > end)
			return false;
		next[2] = value->encap[1].id;
		next[3] = inner;
	}
	return true;
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
	enum fate fate;
	__u32 size, tags;
	__u8 ttl = 0;

	switch (dissect(ctx, &key, &at)) {
	case SERVED:
		break;
	case IS_FRAGMENT:
		return up(FRAGMENT);
	case HAS_OPTIONS:
		return up(OPTIONS);
	default:
		return up(NOT_TCP_OR_UDP);
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
