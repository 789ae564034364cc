/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rewrite a packet as the router forwards it: addresses, ports, TTL, checksums, MAC addresses and
 * VLAN tags, all taken from a flow map value.
 */
#ifndef PACKET_REWRITE_H
#define PACKET_REWRITE_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"
#include "packet_parse.h"

#define VLAN_TAG_LEN 4

/* The fields that NAT changes and that the TCP and UDP checksums cover. */
struct nat_tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
};

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Update a checksum for changed data (RFC 1624). */
static __always_inline __u16 csum_update(__u16 check, void *from, void *to, __u32 size)
{
	return ~csum_fold(bpf_csum_diff(from, size, to, size, (__u16)~check));
}

/* Length of the IP packet from its header; 0 if the frame is shorter than that. */
static __always_inline __u32 ip_length(struct xdp_md *ctx, const struct pkt_offsets *off,
				       __u8 family, __u8 *ttl)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 len;

	if (family == AF_INET) {
		struct iphdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return 0;
		len = bpf_ntohs(ip->tot_len);
		*ttl = ip->ttl;
	} else {
		struct ipv6hdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return 0;
		len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		*ttl = ip->hop_limit;
	}
	return off->l3 + len > end - data ? 0 : len;
}

/* Rewrite addresses, ports, TTL and checksums; false if the packet is too short. */
static __always_inline bool rewrite_l3_l4(struct xdp_md *ctx, const struct flow_key *key,
					  const struct flow_value *value,
					  const struct pkt_offsets *off)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct nat_tuple from = {}, to = {};
	__be16 *ports = data + off->l4;
	__sum16 *check;

	if (key->l4proto == IPPROTO_TCP)
		check = data + off->l4 + offsetof(struct tcphdr, check);
	else
		check = data + off->l4 + offsetof(struct udphdr, check);
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
		struct iphdr *ip = data + off->l3, old;

		if ((void *)(ip + 1) > end)
			return false;
		old = *ip;
		ip->ttl--;
		ip->saddr = to.src[0];
		ip->daddr = to.dst[0];
		ip->check = csum_update(old.check, &old, ip, sizeof(old));
	} else {
		struct ipv6hdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return false;
		ip->hop_limit--;
		__builtin_memcpy(&ip->saddr, to.src, sizeof(to.src));
		__builtin_memcpy(&ip->daddr, to.dst, sizeof(to.dst));
	}

	ports[0] = to.src_port;
	ports[1] = to.dst_port;
	/* UDP: a zero checksum means none and stays zero; a computed zero is sent as 0xffff. */
	if (key->l4proto == IPPROTO_TCP)
		*check = csum_update(*check, &from, &to, sizeof(from));
	else if (*check)
		*check = csum_update(*check, &from, &to, sizeof(from)) ?: 0xffff;
	return true;
}

/*
 * Write the Ethernet header and the VLAN tags that the packet is sent with. The caller has
 * adjusted the headroom for the number of tags.
 */
static __always_inline bool write_l2_header(struct xdp_md *ctx, const struct flow_key *key,
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

#endif
