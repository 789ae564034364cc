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

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Length of the IP packet from its header; 0 if the frame is shorter than that. */
static __always_inline __u32 ip_length(struct xdp_md *ctx, const struct pkt_offsets *off)
{
	__u32 frame = ctx->data_end - ctx->data;

	return off->l3 + off->ip_len > frame ? 0 : off->ip_len;
}

/* Decrement the TTL; the header checksum changes by the same constant (RFC 1141). */
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 check = ip->check + bpf_htons(0x0100);

	ip->check = check + (check >= 0xffff);
	ip->ttl--;
}

/* What a checksum changes by if one 32-bit word is replaced by another (RFC 1624). */
static __always_inline __u64 csum_change(__be32 from, __be32 to)
{
	return (__u64)(__u32)~from + to;
}

static __always_inline __u16 csum_apply(__u16 check, __u64 change)
{
	__u64 sum = (__u16)~check + change;

	sum = (sum & 0xffffffff) + (sum >> 32);
	return ~csum_fold(sum);
}

/* Two ports as one word. */
static __always_inline __u32 ports_word(__be16 src_port, __be16 dst_port)
{
	return src_port | (__u32)dst_port << 16;
}

/* Replace addresses and ports, and update the checksums that cover them. */
static __always_inline bool translate(struct xdp_md *ctx, const struct flow_key *key,
				      const struct flow_value *value,
				      const struct pkt_offsets *off)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be16 *ports = data + off->l4;
	__u64 change = 0;
	__sum16 *check;

	if (key->l4proto == IPPROTO_TCP)
		check = data + off->l4 + offsetof(struct tcphdr, check);
	else
		check = data + off->l4 + offsetof(struct udphdr, check);
	if ((void *)(ports + 2) > end || (void *)(check + 1) > end)
		return false;

	if (key->l3proto == AF_INET) {
		struct iphdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return false;
		change = csum_change(key->src[0], value->src[0]) +
			 csum_change(key->dst[0], value->dst[0]);
		ip->check = csum_apply(ip->check, change);
		ip->saddr = value->src[0];
		ip->daddr = value->dst[0];
	} else {
		struct ipv6hdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return false;
#pragma unroll
		for (int i = 0; i < 4; i++)
			change += csum_change(key->src[i], value->src[i]) +
				  csum_change(key->dst[i], value->dst[i]);
		__builtin_memcpy(&ip->saddr, value->src, sizeof(value->src));
		__builtin_memcpy(&ip->daddr, value->dst, sizeof(value->dst));
	}
	change += csum_change(ports_word(key->src_port, key->dst_port),
			      ports_word(value->src_port, value->dst_port));
	ports[0] = value->src_port;
	ports[1] = value->dst_port;
	/* UDP: a zero checksum means none and stays zero; a computed zero is sent as 0xffff. */
	if (key->l4proto == IPPROTO_TCP)
		*check = csum_apply(*check, change);
	else if (*check)
		*check = csum_apply(*check, change) ?: 0xffff;
	return true;
}

/* Rewrite addresses, ports, TTL and checksums; false if the packet is too short. */
static __always_inline bool rewrite_l3_l4(struct xdp_md *ctx, const struct flow_key *key,
					  const struct flow_value *value,
					  const struct pkt_offsets *off)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if ((value->flags & (FLOW_F_SNAT | FLOW_F_DNAT)) && !translate(ctx, key, value, off))
		return false;
	if (key->l3proto == AF_INET) {
		struct iphdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return false;
		decrement_ttl(ip);
	} else {
		struct ipv6hdr *ip = data + off->l3;

		if ((void *)(ip + 1) > end)
			return false;
		ip->hop_limit--;
	}
	return true;
}

/* The addresses in a value are aligned; packets need not be. */
static __always_inline void copy_mac(__u8 *to, const __u8 *from)
{
	*(__u32 *)to = *(const __u32 *)from;
	*(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

/*
 * Write the Ethernet header and the VLAN tags that the packet is sent with. The caller has
 * adjusted the headroom for the number of tags.
 */
static __always_inline bool write_l2_header(struct xdp_md *ctx, const struct flow_key *key,
					    const struct flow_value *value, __u32 tags,
					    __u32 old_tags)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__be16 inner = bpf_htons(key->l3proto == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	__be16 *next = (void *)(eth + 1);

	if ((void *)next > end)
		return false;
	copy_mac(eth->h_dest, value->h_dest);
	copy_mac(eth->h_source, value->h_source);
	/* Without tags on either side, the EtherType is right. */
	if (!tags && !old_tags)
		return true;
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
