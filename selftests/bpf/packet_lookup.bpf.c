// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look up the flow of every packet from XDP, tc and cgroup programs, with up to two layers of
 * VLAN tags or a PPPoE session, in the packet or in the skb. Count the results and keep the last
 * value of each protocol, family and direction. Packets pass.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_PPP_SES 0x8864
#define PPP_IP 0x0021
#define PPP_IPV6 0x0057
#define VLAN_ID_MASK 0x0fff
#define MAX_IFINDEX 64
#define TC_ACT_OK 0
#define CGROUP_OK 1

enum counter { HIT_ORIGINAL, HIT_REPLY, MISS, UNPARSED };
enum hook { XDP, SKB };

/* Bits of a slot in last_values. A late ACK of a connection goes to its own protocol's slot. */
enum slot { SLOT_REPLY = 1, SLOT_IPV6 = 2, SLOT_UDP = 4, SLOTS = 8 };

struct vlan_tag {
	__be16 tci;
	__be16 next_proto;
};

struct pppoe_header {
	__u8 version_type;
	__u8 code;
	__be16 session;
	__be16 length;
	__be16 ppp_proto;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct flow_value);
} last_values SEC(".maps");

/* A cgroup program runs on a host: the router's device for packets of each of the host's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_IFINDEX);
	__type(key, __u32);
	__type(value, __u32);
} router_ifindex SEC(".maps");

static __always_inline bool load(void *ctx, enum hook hook, __u32 offset, void *to, __u32 size)
{
	if (hook == XDP)
		return !bpf_xdp_load_bytes(ctx, offset, to, size);
	return !bpf_skb_load_bytes(ctx, offset, to, size);
}

static __always_inline bool add_layer(struct flow_key *key, __u32 *layers, __be16 id, __be16 proto)
{
	if (*layers >= 2)
		return false;
	if (*layers) {
		key->encap[1].id = id;
		key->encap[1].proto = proto;
	} else {
		key->encap[0].id = id;
		key->encap[0].proto = proto;
	}
	(*layers)++;
	return true;
}

static __always_inline bool parse(void *ctx, enum hook hook, __u32 offset, __be16 proto,
				  struct flow_key *key, __u32 layers)
{
	struct pppoe_header session;
	struct vlan_tag tag;
	struct ipv6hdr ip6;
	struct iphdr ip;
	__be16 ports[2];

#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (!load(ctx, hook, offset, &tag, sizeof(tag)) ||
		    !add_layer(key, &layers, tag.tci & bpf_htons(VLAN_ID_MASK), proto))
			return false;
		proto = tag.next_proto;
		offset += sizeof(tag);
	}
	if (proto == bpf_htons(ETH_P_PPP_SES)) {
		if (!load(ctx, hook, offset, &session, sizeof(session)) ||
		    !add_layer(key, &layers, session.session, proto))
			return false;
		if (session.ppp_proto == bpf_htons(PPP_IP))
			proto = bpf_htons(ETH_P_IP);
		else if (session.ppp_proto == bpf_htons(PPP_IPV6))
			proto = bpf_htons(ETH_P_IPV6);
		else
			return false;
		offset += sizeof(session);
	}

	if (proto == bpf_htons(ETH_P_IP)) {
		if (!load(ctx, hook, offset, &ip, sizeof(ip)) || ip.ihl != 5)
			return false;
		key->l3proto = AF_INET;
		key->l4proto = ip.protocol;
		key->src[0] = ip.saddr;
		key->dst[0] = ip.daddr;
		offset += sizeof(ip);
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		if (!load(ctx, hook, offset, &ip6, sizeof(ip6)))
			return false;
		key->l3proto = AF_INET6;
		key->l4proto = ip6.nexthdr;
		__builtin_memcpy(key->src, &ip6.saddr, sizeof(key->src));
		__builtin_memcpy(key->dst, &ip6.daddr, sizeof(key->dst));
		offset += sizeof(ip6);
	} else {
		return false;
	}
	if (key->l4proto != IPPROTO_TCP && key->l4proto != IPPROTO_UDP)
		return false;
	if (!load(ctx, hook, offset, ports, sizeof(ports)))
		return false;
	key->src_port = ports[0];
	key->dst_port = ports[1];
	return true;
}

static __always_inline void look_up(struct flow_key *key)
{
	struct flow_value *value = bpf_map_lookup_elem(&flows, key);
	__u32 slot = 0;

	if (!value) {
		count(MISS);
		return;
	}
	if (key->l3proto == AF_INET6)
		slot |= SLOT_IPV6;
	if (key->l4proto == IPPROTO_UDP)
		slot |= SLOT_UDP;
	if (value->dir & 1) {
		slot |= SLOT_REPLY;
		count(HIT_REPLY);
	} else {
		count(HIT_ORIGINAL);
	}
	bpf_map_update_elem(&last_values, &slot, value, BPF_ANY);
}

SEC("xdp")
int packets_by_xdp(struct xdp_md *ctx)
{
	struct flow_key key = { .iifindex = ctx->ingress_ifindex };
	struct ethhdr eth;

	if (!load(ctx, XDP, 0, &eth, sizeof(eth)) ||
	    !parse(ctx, XDP, sizeof(eth), eth.h_proto, &key, 0))
		count(UNPARSED);
	else
		look_up(&key);
	return XDP_PASS;
}

SEC("tc")
int packets_by_tc(struct __sk_buff *ctx)
{
	struct flow_key key = { .iifindex = ctx->ifindex };
	__u32 layers = 0;

	/* The stack has moved the outer tag of a received packet into the skb. */
	if (ctx->vlan_present)
		add_layer(&key, &layers, bpf_htons(ctx->vlan_tci & VLAN_ID_MASK), ctx->vlan_proto);
	if (!parse(ctx, SKB, sizeof(struct ethhdr), ctx->protocol, &key, layers))
		count(UNPARSED);
	else
		look_up(&key);
	return TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int packets_by_cgroup(struct __sk_buff *ctx)
{
	__u32 ifindex = ctx->ifindex, *router = bpf_map_lookup_elem(&router_ifindex, &ifindex);
	struct flow_key key = {};

	/* Packets of other sockets of the cgroup are not of interest. */
	if (!router || !*router)
		return CGROUP_OK;
	key.iifindex = *router;
	/* The packet begins with its IP header. */
	if (!parse(ctx, SKB, 0, ctx->protocol, &key, 0))
		count(UNPARSED);
	else
		look_up(&key);
	return CGROUP_OK;
}

char LICENSE[] SEC("license") = "GPL";
