// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measure the duration of each call of a kernel function, with one pair of fentry and fexit
 * programs per function. `calibrate` measures a function that does almost nothing: the cost of the
 * measurement itself.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#define SAMPLES 4096 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} entry_time SEC(".maps");

/* Slot 0: number of calls. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SAMPLES);
	__type(key, __u32);
	__type(value, __u64);
} samples SEC(".maps");

static __always_inline int enter(void)
{
	__u32 slot = 0;
	__u64 *start = bpf_map_lookup_elem(&entry_time, &slot);

	if (start)
		*start = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int leave(void)
{
	__u64 now = bpf_ktime_get_ns(), *start, *number, *sample;
	__u32 slot = 0;

	start = bpf_map_lookup_elem(&entry_time, &slot);
	number = bpf_map_lookup_elem(&calls, &slot);
	if (!start || !number)
		return 0;
	slot = (*number)++ & (SAMPLES - 1);
	sample = bpf_map_lookup_elem(&samples, &slot);
	if (sample)
		*sample = now - *start;
	return 0;
}

#define PROBE(name, function)                     \
	SEC("fentry/" #function)                  \
	int name##_enter(void *ctx)               \
	{                                         \
		return enter();                   \
	}                                         \
	SEC("fexit/" #function)                   \
	int name##_leave(void *ctx)               \
	{                                         \
		return leave();                   \
	}

PROBE(calibrate, bpf_fentry_test1)
PROBE(add, flow_offload_add)
PROBE(remove, flow_offload_del)
PROBE(rule, nft_flow_offload_eval)
PROBE(commit, nf_tables_commit)
PROBE(flowmap_lookup, flowmap_lookup_elem)
PROBE(flowmap_find, nf_flow_snoop_lookup)
PROBE(kfunc_lookup, bpf_xdp_flow_lookup)
PROBE(kfunc_find, flow_offload_lookup)

char LICENSE[] SEC("license") = "GPL";
