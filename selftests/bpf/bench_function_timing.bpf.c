// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long a function of the kernel takes, each time that it is called: one pair of programs
 * for each function.  `calibrate` is the same pair around a function that does next to nothing.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#define SAMPLES 4096 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} began SEC(".maps");

/* Slot 0 counts the calls. */
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
	__u64 *at = bpf_map_lookup_elem(&began, &slot);

	if (at)
		*at = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int leave(void)
{
	__u64 now = bpf_ktime_get_ns(), *at, *number, *sample;
	__u32 slot = 0;

	at = bpf_map_lookup_elem(&began, &slot);
	number = bpf_map_lookup_elem(&calls, &slot);
	if (!at || !number)
		return 0;
	slot = (*number)++ & (SAMPLES - 1);
	sample = bpf_map_lookup_elem(&samples, &slot);
	if (sample)
		*sample = now - *at;
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
PROBE(free, nf_flow_snoop_destroy)
PROBE(flowmap_lookup, flowmap_lookup_elem)
PROBE(flowmap_find, nf_flow_snoop_lookup)
PROBE(flowmap_refresh, nf_flow_snoop_refresh)
PROBE(flowmap_update, flowmap_update_value)
PROBE(kfunc_lookup, bpf_xdp_flow_lookup)
PROBE(kfunc_find, flow_offload_lookup)

char LICENSE[] SEC("license") = "GPL";
