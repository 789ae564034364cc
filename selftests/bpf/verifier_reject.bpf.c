// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that the verifier must refuse (clauses MM-9 and FM-8); a test loads one at a time.
 * `allowed` has the same structure without the forbidden operation, and must load. It shows that
 * the other programs are not refused for another reason.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

SEC("xdp")
int allowed(struct xdp_md *ctx)
{
	struct flow_key key = {};
	struct flow_value *value = bpf_map_lookup_elem(&flows, &key);

	return value && value->mtu ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int write_value(struct xdp_md *ctx)
{
	struct flow_key key = {};
	struct flow_value *value = bpf_map_lookup_elem(&flows, &key);

	if (value)
		value->mtu = 1;
	return XDP_PASS;
}

SEC("xdp")
int update(struct xdp_md *ctx)
{
	struct flow_value value = {};
	struct flow_key key = {};

	bpf_map_update_elem(&flows, &key, &value, BPF_ANY);
	return XDP_PASS;
}

SEC("xdp")
int delete(struct xdp_md *ctx)
{
	struct flow_key key = {};

	bpf_map_delete_elem(&flows, &key);
	return XDP_PASS;
}

SEC("xdp")
int push(struct xdp_md *ctx)
{
	struct flow_value value = {};

	bpf_map_push_elem(&flows, &value, BPF_ANY);
	return XDP_PASS;
}

/* `map` is a struct bpf_map; naming that type would add many kernel types to the program's BTF. */
static long visit(void *map, const void *key, void *value, void *ctx)
{
	return 0;
}

SEC("xdp")
int for_each(struct xdp_md *ctx)
{
	bpf_for_each_map_elem(&flows, visit, NULL, 0);
	return XDP_PASS;
}

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&flows, 0, 0);
}

SEC("xdp")
int lookup_percpu(struct xdp_md *ctx)
{
	struct flow_key key = {};

	return bpf_map_lookup_percpu_elem(&flows, &key, 0) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int read_past_end(struct xdp_md *ctx)
{
	struct flow_key key = {};
	struct flow_value *value = bpf_map_lookup_elem(&flows, &key);

	return value && *(__u64 *)(value + 1) ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
