// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look every key of `keys` up at each hit of a probe, and count hits, lookups that find a flow and
 * lookups that do not.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"

/* Slots of `counters`. */
enum counter { HITS, FOUND, MISSED, ENDED };

#define MAX_KEYS 64

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_KEYS);
	__type(key, __u32);
	__type(value, struct flow_key);
} keys SEC(".maps");

SEC("kprobe")
int look_up_all(struct pt_regs *ctx)
{
	struct flow_key *key;
	__u32 slot;
	int i;

	count(HITS);
	for (i = 0; i < MAX_KEYS; i++) {
		slot = i;
		key = bpf_map_lookup_elem(&keys, &slot);
		if (!key || !key->l3proto)
			break;
		count(bpf_map_lookup_elem(&flows, key) ? FOUND : MISSED);
	}
	return 0;
}

SEC("kretprobe")
int count_end(struct pt_regs *ctx)
{
	count(ENDED);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
