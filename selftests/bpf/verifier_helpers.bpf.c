// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that pass a flow map to a helper other than bpf_map_lookup_elem() (clause MM-9), and
 * programs that reach the map through an outer map. A test loads one at a time.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "flowmap.h"

#define TC_ACT_OK 0

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} outer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} outer_array SEC(".maps");

SEC("xdp")
int pop(struct xdp_md *ctx)
{
	struct flow_value value = {};

	return bpf_map_pop_elem(&flows, &value) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int peek(struct xdp_md *ctx)
{
	struct flow_value value = {};

	return bpf_map_peek_elem(&flows, &value) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int tail_call(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &flows, 0);
	return XDP_PASS;
}

SEC("tc")
int tail_call_by_tc(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &flows, 0);
	return TC_ACT_OK;
}

SEC("xdp")
int perf_event_output(struct xdp_md *ctx)
{
	__u64 data = 0;

	return bpf_perf_event_output(ctx, &flows, 0, &data, sizeof(data)) ? XDP_DROP : XDP_PASS;
}

SEC("kprobe")
int perf_event_read(struct pt_regs *ctx)
{
	return bpf_perf_event_read(&flows, 0) == 0;
}

SEC("kprobe")
int get_stackid(struct pt_regs *ctx)
{
	return bpf_get_stackid(ctx, &flows, 0) == 0;
}

SEC("kprobe")
int task_under_cgroup(struct pt_regs *ctx)
{
	return bpf_current_task_under_cgroup(&flows, 0);
}

SEC("xdp")
int ringbuf_output(struct xdp_md *ctx)
{
	__u64 data = 0;

	return bpf_ringbuf_output(&flows, &data, sizeof(data), 0) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int ringbuf_reserve(struct xdp_md *ctx)
{
	void *data = bpf_ringbuf_reserve(&flows, 8, 0);

	if (data)
		bpf_ringbuf_discard(data, 0);
	return XDP_PASS;
}

SEC("xdp")
int ringbuf_query(struct xdp_md *ctx)
{
	return bpf_ringbuf_query(&flows, 0) ? XDP_DROP : XDP_PASS;
}

static long drain(struct bpf_dynptr *dynptr, void *context)
{
	return 0;
}

SEC("xdp")
int user_ringbuf_drain(struct xdp_md *ctx)
{
	return bpf_user_ringbuf_drain(&flows, drain, NULL, 0) ? XDP_DROP : XDP_PASS;
}

SEC("tc")
int sk_storage_get(struct __sk_buff *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return TC_ACT_OK;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return TC_ACT_OK;
	return bpf_sk_storage_get(&flows, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) ? 1 : TC_ACT_OK;
}

SEC("tc")
int sk_storage_delete(struct __sk_buff *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return TC_ACT_OK;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return TC_ACT_OK;
	return bpf_sk_storage_delete(&flows, sk) ? 1 : TC_ACT_OK;
}

SEC("fentry/bpf_fentry_test1")
int BPF_PROG(task_storage_get, int number)
{
	return bpf_task_storage_get(&flows, bpf_get_current_task_btf(), NULL, 0) ? 1 : 0;
}

SEC("tc")
int skb_under_cgroup(struct __sk_buff *ctx)
{
	return bpf_skb_under_cgroup(ctx, &flows, 0) ? 1 : TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int local_storage(struct __sk_buff *ctx)
{
	return bpf_get_local_storage(&flows, 0) ? 1 : 0;
}

SEC("sk_reuseport")
int select_reuseport(struct sk_reuseport_md *ctx)
{
	struct flow_key key = {};

	return bpf_sk_select_reuseport(ctx, &flows, &key, 0) ? SK_DROP : SK_PASS;
}

/* Writes to the map by other program types than XDP. */

SEC("tc")
int update_by_tc(struct __sk_buff *ctx)
{
	struct flow_value value = {};
	struct flow_key key = {};

	return bpf_map_update_elem(&flows, &key, &value, BPF_NOEXIST) ? 1 : TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int delete_by_cgroup(struct __sk_buff *ctx)
{
	struct flow_key key = {};

	return bpf_map_delete_elem(&flows, &key) ? 0 : 1;
}

SEC("kprobe")
int update_by_kprobe(struct pt_regs *ctx)
{
	struct flow_value value = {};
	struct flow_key key = {};

	return bpf_map_update_elem(&flows, &key, &value, BPF_ANY);
}

/* The map as an inner map. */

SEC("xdp")
int inner_lookup(struct xdp_md *ctx)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	return inner && bpf_map_lookup_elem(inner, &key) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int inner_array_lookup(struct xdp_md *ctx)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer_array, &slot);
	return inner && bpf_map_lookup_elem(inner, &key) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int inner_update(struct xdp_md *ctx)
{
	struct flow_value value = {};
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	if (inner)
		bpf_map_update_elem(inner, &key, &value, BPF_ANY);
	return XDP_PASS;
}

SEC("xdp")
int inner_delete(struct xdp_md *ctx)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer_array, &slot);
	if (inner)
		bpf_map_delete_elem(inner, &key);
	return XDP_PASS;
}

SEC("xdp")
int inner_redirect(struct xdp_md *ctx)
{
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	return inner ? bpf_redirect_map(inner, 0, 0) : XDP_PASS;
}

SEC("xdp")
int inner_write_value(struct xdp_md *ctx)
{
	struct flow_key key = {};
	struct flow_value *value;
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	if (!inner)
		return XDP_PASS;
	value = bpf_map_lookup_elem(inner, &key);
	if (value)
		value->flags = 0;
	return XDP_PASS;
}

/* An iterator over the elements of a map may write values; a test attaches it. */
SEC("iter/bpf_map_elem")
int element_iterator(struct bpf_iter__bpf_map_elem *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
