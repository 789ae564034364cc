// SPDX-License-Identifier: GPL-2.0-only
/*
 * Baseline for the flow map's forwarder in the benchmarks: bpf_xdp_flow_lookup() checks that there
 * is a flow, bpf_fib_lookup() returns the egress device and the next hop. It handles only what
 * packets of the benchmark need: IPv4 without NAT.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"
#include "kfunc.h"
#include "packet_parse.h"

SEC("xdp")
int by_kfunc(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct bpf_flowtable_opts___local opts = {};
	struct bpf_fib_lookup fib = {};
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct flow_key key = {};
	__u32 check;

	if (!parse_key(ctx, &key) || key.l3proto != AF_INET ||
	    (void *)(ip + 1) > end || ip->ttl <= 1)
		return XDP_PASS;
	fib.family = AF_INET;
	fib.l4_protocol = key.l4proto;
	fib.sport = key.src_port;
	fib.dport = key.dst_port;
	fib.ifindex = key.iifindex;
	fib.ipv4_src = key.src[0];
	fib.ipv4_dst = key.dst[0];
	fib.tot_len = bpf_ntohs(ip->tot_len);
	if (!bpf_xdp_flow_lookup(ctx, &fib, &opts, sizeof(opts)))
		return XDP_PASS;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;

	check = ip->check + bpf_htons(0x0100);
	ip->check = check + (check >= 0xffff);
	ip->ttl--;
	__builtin_memcpy(eth->h_source, fib.smac, sizeof(eth->h_source));
	__builtin_memcpy(eth->h_dest, fib.dmac, sizeof(eth->h_dest));
	return bpf_redirect(fib.ifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
