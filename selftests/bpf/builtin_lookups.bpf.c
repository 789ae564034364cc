// SPDX-License-Identifier: GPL-2.0-only
/*
 * Operations on one map, whose type the test chooses. The test looks at what the verifier makes of
 * the calls (clause MM-8).
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} map SEC(".maps");

SEC("xdp")
int lookup(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&map, &key) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int update(struct xdp_md *ctx)
{
	__u64 value = 0;
	__u32 key = 0;

	return bpf_map_update_elem(&map, &key, &value, BPF_ANY) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int delete(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_delete_elem(&map, &key) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int push(struct xdp_md *ctx)
{
	__u64 value = 0;

	return bpf_map_push_elem(&map, &value, BPF_ANY) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int pop(struct xdp_md *ctx)
{
	__u64 value = 0;

	return bpf_map_pop_elem(&map, &value) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int peek(struct xdp_md *ctx)
{
	__u64 value = 0;

	return bpf_map_peek_elem(&map, &value) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&map, 0, XDP_PASS);
}

/* `map` is a struct bpf_map; naming that type would add many kernel types to the program's BTF. */
static long visit(void *map, const void *key, void *value, void *ctx)
{
	return 0;
}

SEC("xdp")
int for_each(struct xdp_md *ctx)
{
	return bpf_for_each_map_elem(&map, visit, NULL, 0) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int lookup_percpu(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_percpu_elem(&map, &key, 0) ? XDP_DROP : XDP_PASS;
}

/* A lookup in the flow map, for comparison. */
SEC("xdp")
int flowmap_lookup(struct xdp_md *ctx)
{
	struct flow_key key = {};

	return bpf_map_lookup_elem(&flows, &key) ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
