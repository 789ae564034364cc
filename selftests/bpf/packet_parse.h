/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a packet on XDP to the key that must find it: Ethernet, up to two VLAN tags, IPv4
 * without options or IPv6 without extension headers, TCP or UDP, and no fragment: all but the
 * first have no ports, and flow tables leave the first alone, too.
 */
#ifndef PACKET_H
#define PACKET_H

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */

enum parsed { SERVED, NOT_SERVED, IS_FRAGMENT, HAS_OPTIONS };

/* Where in a packet its headers are, from the start of the frame. */
struct place {
	__u32 tags; /* how many */
	__u32 l3;
	__u32 l4;
};

/* Fill the key from the packet, and say whether it is one that flow tables serve. */
static __always_inline enum parsed dissect(struct xdp_md *ctx, struct flow_key *key,
					   struct place *at)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *next = eth + 1;
	__be16 proto, *ports;

	at->tags = 0;
	if (next > end)
		return NOT_SERVED;
	proto = eth->h_proto;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		__be16 *tag = next;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > end)
			return NOT_SERVED;
		key->encap[i].id = tag[0] & bpf_htons(0x0fff);
		key->encap[i].proto = proto;
		proto = tag[1];
		next = tag + 2;
		at->tags = i + 1;
	}
	/* Reckoned, not subtracted: the verifier knows no bounds for the distance of pointers. */
	at->l3 = sizeof(*eth) + at->tags * 2 * sizeof(__be16);

	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		next = ip + 1;
		if (next > end)
			return NOT_SERVED;
		if (ip->ihl != 5)
			return HAS_OPTIONS;
		if (ip->frag_off & bpf_htons(IP_FRAGMENT))
			return IS_FRAGMENT;
		at->l4 = at->l3 + sizeof(*ip);
		key->l3proto = AF_INET;
		key->l4proto = ip->protocol;
		key->src[0] = ip->saddr;
		key->dst[0] = ip->daddr;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;

		next = ip + 1;
		if (next > end)
			return NOT_SERVED;
		at->l4 = at->l3 + sizeof(*ip);
		key->l3proto = AF_INET6;
		key->l4proto = ip->nexthdr;
		__builtin_memcpy(key->src, &ip->saddr, sizeof(key->src));
		__builtin_memcpy(key->dst, &ip->daddr, sizeof(key->dst));
	} else {
		return NOT_SERVED;
	}

	if (key->l4proto != IPPROTO_TCP && key->l4proto != IPPROTO_UDP)
		return NOT_SERVED;
	ports = next;
	if ((void *)(ports + 2) > end)
		return NOT_SERVED;
	key->src_port = ports[0];
	key->dst_port = ports[1];
	key->iifindex = ctx->ingress_ifindex;
	return SERVED;
}

/* Fill the key from the packet; false when it is not one that flow tables serve. */
static __always_inline bool parse(struct xdp_md *ctx, struct flow_key *key)
{
	struct place at;

	return dissect(ctx, key, &at) == SERVED;
}

#endif
