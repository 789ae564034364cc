/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The flow map `flows` and its UAPI. The structures are written by hand from docs/contract.md, so
 * that the tests detect a kernel with a different layout. Their names differ from those of the
 * kernel's structures, which are in vmlinux.h.
 */
#ifndef FLOWMAP_H
#define FLOWMAP_H

#include <bpf/bpf_helpers.h>

struct flow_encap {
	__be16 id;
	__be16 proto;
};

struct flow_key {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
	__u32 iifindex;
	__u8 l3proto;
	__u8 l4proto;
	__u16 zone; /* conntrack zone of this direction, 0 by default */
	__u8 tun_l4proto;
	__u8 reserved[3];
	struct flow_encap encap[2];
	__be32 tun_src[4];
	__be32 tun_dst[4];
};

struct flow_value {
	__u64 expires;
	__u8 h_dest[6];
	__u16 reserved;
	__u8 h_source[6];
	__u16 reserved2;
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
	__u32 oifindex;
	__u32 flags;
	__u32 ct_id;
	__u32 ct_mark;
	__u16 ct_zone;
	__u16 mtu;
	__u8 dir;
	__u8 xmit_type;
	__u8 tun_l4proto;
	__u8 reserved3;
	struct flow_encap encap[2];
	__u32 reserved4;
	/* A map's values may end here, at FLOW_VALUE_SIZE_VER0, or anywhere up to the whole size. */
	__be32 tun_src[4];
	__be32 tun_dst[4];
};

#define FLOW_VALUE_SIZE_VER0 96

/* Bits of flags in struct flow_value. */
#define FLOW_F_SNAT 1
#define FLOW_F_DNAT 2
#define FLOW_F_CLOSING 4 /* FIN or RST seen, as of the last lookup */
#define FLOW_F_HW 8 /* offloaded to hardware, as of the last lookup */

_Static_assert(sizeof(struct flow_key) == 88, "size of struct flow_key");
_Static_assert(sizeof(struct flow_value) == 128, "size of struct flow_value");
_Static_assert(__builtin_offsetof(struct flow_value, tun_src) == FLOW_VALUE_SIZE_VER0,
	       "size of version 0 of struct flow_value");

struct {
	__uint(type, BPF_MAP_TYPE_FLOWMAP);
	__uint(max_entries, 2048); /* two keys for each flow */
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows SEC(".maps");

#endif
