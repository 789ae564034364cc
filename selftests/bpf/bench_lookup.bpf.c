// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that make one lookup each, run many times by BPF_PROG_TEST_RUN. The cost of a lookup is
 * the cost of a run minus the cost of a run of `baseline`. All programs take the prepared arguments
 * of the next lookup from the same array, so that with many flows each run looks up another flow.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"
#include "kfunc.h"

#define LOOKUPS 1024 /* a power of two */

struct prepared_lookup {
	struct flow_key key;
	struct bpf_fib_lookup tuple; /* the same flow, for the kfunc */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOOKUPS);
	__type(key, __u32);
	__type(value, struct prepared_lookup);
} lookup_args SEC(".maps");

/* Slot 0: number of the next lookup; slot 1: number of hits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} state SEC(".maps");

/* A plain hash map with keys and values of the same size, for comparison. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LOOKUPS);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} plain_hash SEC(".maps");

static __always_inline struct prepared_lookup *next_args(void)
{
	__u32 slot = 0;
	__u64 *next = bpf_map_lookup_elem(&state, &slot);

	if (!next)
		return NULL;
	slot = (*next)++ & (LOOKUPS - 1);
	return bpf_map_lookup_elem(&lookup_args, &slot);
}

static __always_inline int count_hit(bool hit)
{
	__u32 slot = 1;
	__u64 *hits = bpf_map_lookup_elem(&state, &slot);

	if (hits && hit)
		(*hits)++;
	return XDP_PASS;
}

SEC("xdp")
int baseline(struct xdp_md *ctx)
{
	struct prepared_lookup *args = next_args();

	return count_hit(args);
}

SEC("xdp")
int by_flowmap(struct xdp_md *ctx)
{
	struct prepared_lookup *args = next_args();

	return count_hit(args && bpf_map_lookup_elem(&flows, &args->key));
}

SEC("xdp")
int by_hash(struct xdp_md *ctx)
{
	struct prepared_lookup *args = next_args();

	return count_hit(args && bpf_map_lookup_elem(&plain_hash, &args->key));
}

SEC("xdp")
int by_kfunc(struct xdp_md *ctx)
{
	struct bpf_flowtable_opts___local opts = {};
	struct prepared_lookup *args = next_args();

	return count_hit(args && bpf_xdp_flow_lookup(ctx, &args->tuple, &opts, sizeof(opts)));
}

char LICENSE[] SEC("license") = "GPL";
