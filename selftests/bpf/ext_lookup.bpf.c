// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs of type EXT that replace the function `replaceable` of ext_targets.bpf.c (clause MM-9).
 * The verifier checks them as programs that do not sleep. Where they run is up to their target.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} outer SEC(".maps");

/* Control: the same extension without a flow map. */
SEC("freplace")
int without_flowmap(int number)
{
	return number + 1;
}

SEC("freplace")
int with_lookup(int number)
{
	struct flow_key key = {};

	return bpf_map_lookup_elem(&flows, &key) ? number : number + 1;
}

SEC("freplace")
int with_inner_map_lookup(int number)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	return inner && bpf_map_lookup_elem(inner, &key) ? number : number + 1;
}

static __attribute__((noinline)) int look_up(int number)
{
	struct flow_key key = {};

	return bpf_map_lookup_elem(&flows, &key) ? number : number + 1;
}

SEC("freplace")
int with_lookup_in_function(int number)
{
	return look_up(number);
}

char LICENSE[] SEC("license") = "GPL";
