/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP windows as conntrack tracks them (tcp_in_window() in net/netfilter/nf_conntrack_proto_tcp.c,
 * nf_conntrack_tcp_be_liberal=0), but for SACK: what is acknowledged out of order widens no
 * window here.
 *
 * Each direction has a record of its own, found by the key of its packets.  Only packets of
 * that direction write to it, and those come one after the other, so nothing is locked.
 *
 * A packet that no flow serves is seen, too, but its peer cannot be found then; so its
 * direction counts as unknown until it is served again, and nothing is held against it.
 */
#ifndef WINDOW_H
#define WINDOW_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_SCALE 3
#define TCP_SCALE_MAX 14
#define TCP_SLACK 66000 /* how far back an acknowledgement may lie, at least: MAXACKWINCONST */
#define TCP_OPTIONS 10 /* no SYN in use has more */

enum scaling { SCALE_UNSEEN, SCALE_OFFERED, SCALE_NOT_OFFERED };

struct window {
	__u32 end; /* after the last octet sent */
	__u32 allows; /* after the last octet that the peer may send */
	__u32 largest; /* window */
	__u8 known;
	__u8 scaling;
	__u8 scale;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, struct window);
} windows SEC(".maps");

static __always_inline bool before(__u32 one, __u32 other)
{
	return (__s32)(one - other) < 0;
}

/* The key of packets that come back: what leaves as the value says is answered. */
static __always_inline void turn(const struct flow_key *key, const struct flow_value *value,
				 struct flow_key *back)
{
	__builtin_memset(back, 0, sizeof(*back));
	__builtin_memcpy(back->src, value->dst, sizeof(back->src));
	__builtin_memcpy(back->dst, value->src, sizeof(back->dst));
	back->src_port = value->dst_port;
	back->dst_port = value->src_port;
	back->iifindex = value->oifindex;
	back->l3proto = key->l3proto;
	back->l4proto = key->l4proto;
	back->encap[0] = value->encap[0];
	back->encap[1] = value->encap[1];
}

/* A SYN begins anew, and says by how much the windows of its direction are to be shifted. */
static __always_inline void window_begin(struct xdp_md *ctx, const struct flow_key *key,
					 __u32 options, __u32 end)
{
	struct window fresh = { .scaling = SCALE_NOT_OFFERED };

	for (int i = 0; i < TCP_OPTIONS && options < end; i++) {
		__u8 option[3] = {};

		/* An option of one octet may be the frame's last. */
		if (bpf_xdp_load_bytes(ctx, options, option, sizeof(option)) &&
		    bpf_xdp_load_bytes(ctx, options, option, 1))
			break;
		if (option[0] == TCP_OPTION_END)
			break;
		if (option[0] == TCP_OPTION_NOP) {
			options++;
			continue;
		}
		if (option[0] == TCP_OPTION_SCALE) {
			fresh.scaling = SCALE_OFFERED;
			fresh.scale = option[2] < TCP_SCALE_MAX ? option[2] : TCP_SCALE_MAX;
			break;
		}
		if (option[1] < 2)
			break;
		options += option[1];
	}
	bpf_map_update_elem(&windows, key, &fresh, BPF_ANY);
}

/* A packet that no flow served: what is known of its direction is out of date. */
static __always_inline void window_missed(const struct flow_key *key)
{
	struct window *own = bpf_map_lookup_elem(&windows, key);

	if (own)
		own->known = 0;
}

/* Both have to offer it (RFC 7323); of a connection seen in its midst, as much as there can be. */
static __always_inline __u32 scale_of(const struct window *own, const struct window *peer)
{
	if (own->scaling == SCALE_NOT_OFFERED || (peer && peer->scaling == SCALE_NOT_OFFERED))
		return 0;
	if (own->scaling == SCALE_OFFERED)
		return own->scale;
	return TCP_SCALE_MAX;
}

/*
 * Whether a segment may pass: nothing beyond what the peer allows or acknowledged before it was
 * sent.  What is older than the window passes, too, for its receiver to answer, and moves nothing.
 */
static __always_inline bool window_admits(const struct flow_key *key,
					  const struct flow_value *value, __u32 seq, __u32 end,
					  __u32 ack, __u32 size)
{
	struct window *own, *peer, fresh = {};
	struct flow_key back;
	__u32 slack;

	own = bpf_map_lookup_elem(&windows, key);
	if (!own) {
		bpf_map_update_elem(&windows, key, &fresh, BPF_ANY);
		own = bpf_map_lookup_elem(&windows, key);
		if (!own)
			return true; /* no room: not tracked */
	}
	turn(key, value, &back);
	peer = bpf_map_lookup_elem(&windows, &back);

	if (peer && peer->known) {
		slack = own->known && own->largest > TCP_SLACK ? own->largest : TCP_SLACK;
		if (before(peer->allows, seq))
			return false;
		if (own->known && before(end, own->end - peer->largest))
			return true;
		if (before(peer->end, ack))
			return false;
		if (before(ack, peer->end - slack))
			return true;
	}

	size <<= scale_of(own, peer);
	size = size ?: 1; /* a closed window is probed with an octet */
	if (!own->known || before(own->end, end))
		own->end = end;
	if (!own->known || before(own->allows, ack + size))
		own->allows = ack + size;
	if (!own->known || own->largest < size)
		own->largest = size;
	own->known = 1;
	return true;
}

#endif
