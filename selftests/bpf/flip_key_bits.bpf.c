// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look up a key, and each key that differs from it in one bit. The flow map has one flow, so only
 * the reversed key of its other direction may be found besides.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define KEY_BYTES sizeof(struct flow_key)
#define KEY_BITS (8 * KEY_BYTES)
#define TC_ACT_OK 0

struct flip_result {
	__u32 lookups; /* of keys with a flipped bit */
	__u32 hits;
	__u32 first_hit; /* number of the bit: 8 * byte + bit */
	__u32 unflipped; /* hits of the key itself, before and after */
	__u8 key[KEY_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flip_result);
} flips SEC(".maps");

static __always_inline void flip_each_bit(void)
{
	__u8 key[KEY_BYTES] __attribute__((aligned(8)));
	struct flip_result *result;
	__u32 slot = 0;

	result = bpf_map_lookup_elem(&flips, &slot);
	if (!result)
		return;
	__builtin_memcpy(key, result->key, sizeof(key));
	if (bpf_map_lookup_elem(&flows, key))
		result->unflipped++;
	for (__u32 bit = 0; bit < KEY_BITS; bit++) {
		__u32 byte = bit >> 3;

		if (byte >= KEY_BYTES)
			break;
		key[byte] ^= 1 << (bit & 7);
		result->lookups++;
		if (bpf_map_lookup_elem(&flows, key)) {
			if (!result->hits)
				result->first_hit = bit;
			result->hits++;
		}
		key[byte] ^= 1 << (bit & 7);
	}
	if (bpf_map_lookup_elem(&flows, key))
		result->unflipped++;
}

SEC("xdp")
int flip_by_xdp(struct xdp_md *ctx)
{
	flip_each_bit();
	return XDP_PASS;
}

SEC("tc")
int flip_by_tc(struct __sk_buff *ctx)
{
	flip_each_bit();
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
