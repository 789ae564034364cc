// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes packets of many UDP flows out of one, for BPF_PROG_TEST_RUN with live frames, and takes
 * them away again where they come out.  Flow N has the client's address + N / 16384 and the
 * client's port 1024 + N % 16384.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"

#define PORTS 16384 /* of one address; a power of two */
#define FIRST_PORT 1024
#define ETH_P_IP 0x0800
#define TC_ACT_SHOT 2
#define HEADERS 42 /* Ethernet, IPv4, UDP */

enum counter { MADE, ARRIVED, DROPPED };

struct plan {
	__u64 next; /* number of the next packet */
	__u32 first; /* flows of this run: the first, and how many */
	__u32 flows;
	__u32 reply; /* whether the client is the destination */
	__u32 action; /* XDP_PASS: straight into the stack; XDP_TX: onto the wire */
	__u32 client; /* address of flow 0's client, in host order */
	__u8 headers[HEADERS];
	__u8 padding[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} plan SEC(".maps");

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct plan *own;
	__u32 slot = 0, flow, sum;
	__be32 client;
	__be16 port;

	own = bpf_map_lookup_elem(&plan, &slot);
	if (!own || (void *)(udp + 1) > end || !own->flows)
		return XDP_ABORTED;
	flow = own->first + (__u32)own->next % own->flows;
	own->next++;

	/* Frames are used again as others left them. */
	__builtin_memcpy(data, own->headers, HEADERS);
	client = bpf_htonl(own->client + flow / PORTS);
	port = bpf_htons(FIRST_PORT + flow % PORTS);
	if (own->reply) {
		ip->daddr = client;
		udp->dest = port;
	} else {
		ip->saddr = client;
		udp->source = port;
	}
	/* The template has no checksums; UDP needs none over IPv4. */
	sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += ((__be16 *)ip)[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
	count(MADE);
	return own->action;
}

/* Whatever else the kernel sends by itself is not counted. */
static __always_inline void see(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) <= end && eth->h_proto == bpf_htons(ETH_P_IP) &&
	    ip->protocol == IPPROTO_UDP)
		count(ARRIVED);
}

/* Where frames come out: the other end of the wire. */
SEC("xdp")
int arrive(struct xdp_md *ctx)
{
	see((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return XDP_DROP;
}

/* Where packets come out: the door of the driver. */
SEC("tc")
int depart(struct __sk_buff *ctx)
{
	see((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return TC_ACT_SHOT;
}

/* Takes every packet at the router's door: what making them and bringing them there costs. */
SEC("xdp")
int drop(struct xdp_md *ctx)
{
	count(DROPPED);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
