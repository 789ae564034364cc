// SPDX-License-Identifier: GPL-2.0-only
/*
 * Packet generator and sink for the forwarding benchmarks. One program generates packets of many
 * UDP flows, for BPF_PROG_TEST_RUN with live frames; others count and drop the forwarded packets.
 * Flow N has the client address + N / 16384 and the client port 1024 + N % 16384.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"

#define PORTS 16384 /* ports per client address; a power of two */
#define FIRST_PORT 1024
#define ETH_P_IP 0x0800
#define TC_ACT_SHOT 2
#define HEADERS_LEN 42 /* Ethernet, IPv4, UDP */

enum counter { GENERATED, ARRIVED, DROPPED };

struct pktgen_config {
	__u64 next; /* number of the next packet */
	__u32 first; /* first flow of this run */
	__u32 flows; /* number of flows of this run */
	__u32 reply; /* whether the client is the destination */
	__u32 action; /* XDP_PASS: into the stack; XDP_TX: out of the device */
	__u32 client; /* client address of flow 0, in host byte order */
	__u8 headers[HEADERS_LEN];
	__u8 padding[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pktgen_config);
} pktgen_config SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct pktgen_config *config;
	__u32 slot = 0, flow, sum;
	__be32 client;
	__be16 port;

	config = bpf_map_lookup_elem(&pktgen_config, &slot);
	if (!config || (void *)(udp + 1) > end || !config->flows)
		return XDP_ABORTED;
	flow = config->first + (__u32)config->next % config->flows;
	config->next++;

	/* The kernel recycles frames with the contents that the stack left in them. */
	__builtin_memcpy(data, config->headers, HEADERS_LEN);
	client = bpf_htonl(config->client + flow / PORTS);
	port = bpf_htons(FIRST_PORT + flow % PORTS);
	if (config->reply) {
		ip->daddr = client;
		udp->dest = port;
	} else {
		ip->saddr = client;
		udp->source = port;
	}
	/* The template has no checksums. UDP over IPv4 does not need one. */
	sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += ((__be16 *)ip)[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
	count(GENERATED);
	return config->action;
}

/* Count only UDP over IPv4, not other packets that the kernel sends by itself. */
static __always_inline void count_arrived(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) <= end && eth->h_proto == bpf_htons(ETH_P_IP) &&
	    ip->protocol == IPPROTO_UDP)
		count(ARRIVED);
}

/* Count and drop received frames; for the peer of the router's egress device. */
SEC("xdp")
int count_rx(struct xdp_md *ctx)
{
	count_arrived((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return XDP_DROP;
}

/* Count and drop packets before the driver transmits them; for the egress device. */
SEC("tc")
int count_tx(struct __sk_buff *ctx)
{
	count_arrived((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return TC_ACT_SHOT;
}

/* Drop every packet on the router's ingress device: measures the cost of the generator alone. */
SEC("xdp")
int drop(struct xdp_md *ctx)
{
	count(DROPPED);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
