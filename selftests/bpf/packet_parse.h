/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parse a packet on XDP into the flow map key of its flow: Ethernet, up to two VLAN tags, IPv4
 * without options or IPv6 without extension headers, TCP or UDP. Fragments are not parsed: later
 * fragments have no ports, and flow tables do not handle the first fragment either.
 *
 * The ruleset decides which conntrack zone a packet belongs to, so the caller sets the zone in the
 * key; with the key cleared it is the default zone.
 */
#ifndef PACKET_PARSE_H
#define PACKET_PARSE_H

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define IP_FRAGMENT_MASK 0x3fff /* more fragments, or an offset */

enum parse_result { PARSE_OK, PARSE_UNSUPPORTED, PARSE_FRAGMENT, PARSE_IP_OPTIONS };

/* Offsets of a packet's headers from the start of the frame. */
struct pkt_offsets {
	__u32 tags; /* number of VLAN tags */
	__u32 l3;
	__u32 l4;
	__u32 ip_len; /* of the IP packet, from its header */
	__u8 ttl; /* or the hop limit */
};

/* Fill the key and the offsets from the packet. */
static __always_inline enum parse_result parse_packet(struct xdp_md *ctx, struct flow_key *key,
						      struct pkt_offsets *off)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *next = eth + 1;
	__be16 proto, *ports;

	off->tags = 0;
	if (next > end)
		return PARSE_UNSUPPORTED;
	proto = eth->h_proto;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		__be16 *tag = next;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > end)
			return PARSE_UNSUPPORTED;
		key->encap[i].id = tag[0] & bpf_htons(0x0fff);
		key->encap[i].proto = proto;
		proto = tag[1];
		next = tag + 2;
		off->tags = i + 1;
	}
	/* The verifier has no bounds for the difference of two pointers, so compute the offset. */
	off->l3 = sizeof(*eth) + off->tags * 2 * sizeof(__be16);

	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		next = ip + 1;
		if (next > end)
			return PARSE_UNSUPPORTED;
		if (ip->ihl != 5)
			return PARSE_IP_OPTIONS;
		if (ip->frag_off & bpf_htons(IP_FRAGMENT_MASK))
			return PARSE_FRAGMENT;
		off->l4 = off->l3 + sizeof(*ip);
		off->ip_len = bpf_ntohs(ip->tot_len);
		off->ttl = ip->ttl;
		key->l3proto = AF_INET;
		key->l4proto = ip->protocol;
		key->src[0] = ip->saddr;
		key->dst[0] = ip->daddr;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;

		next = ip + 1;
		if (next > end)
			return PARSE_UNSUPPORTED;
		off->l4 = off->l3 + sizeof(*ip);
		off->ip_len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		off->ttl = ip->hop_limit;
		key->l3proto = AF_INET6;
		key->l4proto = ip->nexthdr;
		__builtin_memcpy(key->src, &ip->saddr, sizeof(key->src));
		__builtin_memcpy(key->dst, &ip->daddr, sizeof(key->dst));
	} else {
		return PARSE_UNSUPPORTED;
	}

	if (key->l4proto != IPPROTO_TCP && key->l4proto != IPPROTO_UDP)
		return PARSE_UNSUPPORTED;
	ports = next;
	if ((void *)(ports + 2) > end)
		return PARSE_UNSUPPORTED;
	key->src_port = ports[0];
	key->dst_port = ports[1];
	key->iifindex = ctx->ingress_ifindex;
	return PARSE_OK;
}

/* Fill the key from the packet; false if the packet is not supported. */
static __always_inline bool parse_key(struct xdp_md *ctx, struct flow_key *key)
{
	struct pkt_offsets off;

	return parse_packet(ctx, key, &off) == PARSE_OK;
}

#endif
