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

/* Fill the key from the packet; false when it is not one that flow tables serve. */
static __always_inline bool parse(struct xdp_md *ctx, struct flow_key *key)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *next = eth + 1;
	__be16 proto, *ports;

	if (next > end)
		return false;
	proto = eth->h_proto;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		__be16 *tag = next;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > end)
			return false;
		key->encap[i].id = tag[0] & bpf_htons(0x0fff);
		key->encap[i].proto = proto;
		proto = tag[1];
		next = tag + 2;
	}

	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		next = ip + 1;
		if (next > end || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_FRAGMENT))
			return false;
		key->l3proto = AF_INET;
		key->l4proto = ip->protocol;
		key->src[0] = ip->saddr;
		key->dst[0] = ip->daddr;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;

		next = ip + 1;
		if (next > end)
			return false;
		key->l3proto = AF_INET6;
		key->l4proto = ip->nexthdr;
		__builtin_memcpy(key->src, &ip->saddr, sizeof(key->src));
		__builtin_memcpy(key->dst, &ip->daddr, sizeof(key->dst));
	} else {
		return false;
	}

	if (key->l4proto != IPPROTO_TCP && key->l4proto != IPPROTO_UDP)
		return false;
	ports = next;
	if ((void *)(ports + 2) > end)
		return false;
	key->src_port = ports[0];
	key->dst_port = ports[1];
	key->iifindex = ctx->ingress_ifindex;
	return true;
}

#endif
