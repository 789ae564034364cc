// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that write to the value of a flow map: by an instruction, or by a helper or kfunc that
 * gets a pointer to it (clauses MM-9 and FM-8). A test loads one at a time. Those whose name begins
 * with "read" only read the value, and must load.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "flowmap.h"
#include "kfunc.h"

#define TC_ACT_OK 0
/* A length for helpers that want a memory area. */
#define LENGTH 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_value);
} copies SEC(".maps");

static __always_inline struct flow_value *look_up(void)
{
	struct flow_key key = {};

	return bpf_map_lookup_elem(&flows, &key);
}

/* A program of a type that runs on a packet, with the statement after a hit. */
#define ON_HIT(section, context, name, statement)		\
	SEC(section)						\
	int name(struct context *ctx)				\
	{							\
		struct flow_value *value = look_up();		\
								\
		if (value) {					\
			statement;				\
		}						\
		return 0;					\
	}

/* Instructions. */
ON_HIT("xdp", xdp_md, store_first_byte, *(volatile __u8 *)value = 1)
ON_HIT("xdp", xdp_md, store_last_byte, ((volatile __u8 *)value)[sizeof(*value) - 1] = 1)
ON_HIT("xdp", xdp_md, store_u16, *(volatile __u16 *)&value->mtu = 1)
ON_HIT("xdp", xdp_md, store_u64, *(volatile __u64 *)&value->expires = 1)
ON_HIT("tc", __sk_buff, store_by_tc, *(volatile __u32 *)&value->flags = 1)
ON_HIT("cgroup_skb/egress", __sk_buff, store_by_cgroup, *(volatile __u32 *)&value->flags = 1)
ON_HIT("socket", __sk_buff, store_by_socket, *(volatile __u32 *)&value->flags = 1)
ON_HIT("kprobe", pt_regs, store_by_kprobe, *(volatile __u32 *)&value->flags = 1)
ON_HIT("xdp", xdp_md, atomic_add, __sync_fetch_and_add(&value->expires, 1))
ON_HIT("xdp", xdp_md, atomic_exchange, __sync_lock_test_and_set(&value->expires, 1))
ON_HIT("xdp", xdp_md, atomic_compare_exchange,
       __sync_val_compare_and_swap(&value->expires, 0, 1))
ON_HIT("tc", __sk_buff, atomic_or, __sync_fetch_and_or(&value->ct_mark, 1))

/* Functions. */
static __noinline int store_in_static_function(struct flow_value *value)
{
	value->ct_mark = 1;
	return 0;
}

ON_HIT("xdp", xdp_md, store_by_function, store_in_static_function(value))

__attribute__((noinline)) int store_in_global_function(struct flow_value *value)
{
	if (value)
		value->ct_mark = 1;
	return 0;
}

ON_HIT("xdp", xdp_md, store_by_global_function, store_in_global_function(value))

static long store_in_loop(__u32 index, struct flow_value **value)
{
	(*value)->ct_mark = 1;
	return 1;
}

ON_HIT("xdp", xdp_md, store_by_loop, bpf_loop(1, store_in_loop, &value, 0))

/* Helpers. */
ON_HIT("xdp", xdp_md, fib_lookup,
       bpf_fib_lookup(ctx, (void *)value, sizeof(struct bpf_fib_lookup), 0))
ON_HIT("tc", __sk_buff, fib_lookup_by_tc,
       bpf_fib_lookup(ctx, (void *)value, sizeof(struct bpf_fib_lookup), 0))
ON_HIT("xdp", xdp_md, check_mtu, bpf_check_mtu(ctx, 1, &value->oifindex, 0, 0))
ON_HIT("tc", __sk_buff, check_mtu_by_tc, bpf_check_mtu(ctx, 1, &value->oifindex, 0, 0))
ON_HIT("xdp", xdp_md, string_to_long,
       bpf_strtol((char *)&value->src, LENGTH, 0, (long *)&value->expires))
ON_HIT("xdp", xdp_md, string_to_ulong,
       bpf_strtoul((char *)&value->src, LENGTH, 0, (unsigned long *)&value->expires))
ON_HIT("xdp", xdp_md, xdp_load_bytes, bpf_xdp_load_bytes(ctx, 0, value, LENGTH))
ON_HIT("tc", __sk_buff, skb_load_bytes, bpf_skb_load_bytes(ctx, 0, value, LENGTH))
ON_HIT("cgroup_skb/egress", __sk_buff, skb_load_bytes_relative,
       bpf_skb_load_bytes_relative(ctx, 0, value, LENGTH, BPF_HDR_START_NET))
ON_HIT("tc", __sk_buff, get_tunnel_key,
       bpf_skb_get_tunnel_key(ctx, (void *)value, sizeof(struct bpf_tunnel_key), 0))
ON_HIT("xdp", xdp_md, probe_read_kernel, bpf_probe_read_kernel(value, LENGTH, &copies))
ON_HIT("kprobe", pt_regs, probe_read_user, bpf_probe_read_user(value, LENGTH, (void *)1))
ON_HIT("kprobe", pt_regs, get_current_comm, bpf_get_current_comm(value, LENGTH))
ON_HIT("kprobe", pt_regs, get_stack, bpf_get_stack(ctx, value, LENGTH, 0))

SEC("xdp")
int print_to_value(struct xdp_md *ctx)
{
	static const char format[] = "%d";
	struct flow_value *value = look_up();
	__u64 number = 1;

	if (value)
		bpf_snprintf((char *)value, LENGTH, format, &number, sizeof(number));
	return XDP_PASS;
}

/* Dynptrs. */
extern int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u64 offset, void *buffer,
			      __u64 buffer__szk) __ksym;

ON_HIT("xdp", xdp_md, dynptr_from_mem, struct bpf_dynptr dynptr;
       bpf_dynptr_from_mem(value, sizeof(*value), 0, &dynptr))

SEC("xdp")
int dynptr_read(struct xdp_md *ctx)
{
	struct flow_value *value = look_up();
	struct bpf_dynptr dynptr;

	if (value && !bpf_dynptr_from_xdp(ctx, 0, &dynptr))
		bpf_dynptr_read(value, LENGTH, &dynptr, 0, 0);
	return XDP_PASS;
}

SEC("xdp")
int dynptr_slice(struct xdp_md *ctx)
{
	struct flow_value *value = look_up();
	struct bpf_dynptr dynptr;

	if (value && !bpf_dynptr_from_xdp(ctx, 0, &dynptr))
		return bpf_dynptr_slice(&dynptr, 0, value, LENGTH) ? XDP_DROP : XDP_PASS;
	return XDP_PASS;
}

/* A kfunc, which stores an error in its options. */
ON_HIT("xdp", xdp_md, kfunc_options, struct bpf_fib_lookup tuple = {};
       bpf_xdp_flow_lookup(ctx, &tuple, (void *)value, sizeof(struct bpf_flowtable_opts___local)))

/* Helpers that only read the value. */
ON_HIT("xdp", xdp_md, read_by_csum_diff, bpf_csum_diff(value->src, LENGTH, NULL, 0, 0))

SEC("tc")
int read_by_update_of_other_map(struct __sk_buff *ctx)
{
	struct flow_value *value = look_up();
	__u32 slot = 0;

	if (value)
		bpf_map_update_elem(&copies, &slot, value, BPF_ANY);
	return TC_ACT_OK;
}

SEC("xdp")
int read_by_lookup_in_other_map(struct xdp_md *ctx)
{
	struct flow_value *value = look_up();

	return value && bpf_map_lookup_elem(&copies, &value->flags) ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
