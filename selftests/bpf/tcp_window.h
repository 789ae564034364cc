/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP window tracking like conntrack's (tcp_in_window() in net/netfilter/nf_conntrack_proto_tcp.c
 * with nf_conntrack_tcp_be_liberal=0), but without SACK: selective acknowledgements do not widen
 * a window.
 *
 * Each direction has its own record, found by the key of its packets. Only packets of that
 * direction write to the record, and they arrive one after the other, so there is no lock.
 *
 * A packet without a flow has no value from which to find the other direction. It marks its own
 * direction as unknown until the next packet with a flow, and no segment is dropped because of it.
 */
#ifndef TCP_WINDOW_H
#define TCP_WINDOW_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_WSCALE 3
#define TCP_WSCALE_MAX 14
#define TCP_ACK_SLACK 66000 /* an acknowledgement may be at least this old: MAXACKWINCONST */
#define TCP_MAX_OPTIONS 10 /* no SYN in use has more */

enum wscale_state { WSCALE_UNKNOWN, WSCALE_OFFERED, WSCALE_NOT_OFFERED };

struct window {
	__u32 end; /* sequence number after the last byte sent */
	__u32 max_peer_end; /* sequence number after the last byte that the peer may send */
	__u32 max_window; /* largest window advertised */
	__u8 known; /* whether the fields above are valid */
	__u8 wscale_state; /* enum wscale_state */
	__u8 wscale; /* window scale factor */
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

/*
 * Key of the reply packets: those that answer packets rewritten as the value says. The zone is that
 * of the key, as in a ruleset that sets the zone of both directions.
 */
static __always_inline void reverse_key(const struct flow_key *key, const struct flow_value *value,
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
	back->zone = key->zone;
	back->encap[0] = value->encap[0];
	back->encap[1] = value->encap[1];
}

/* Start a new record at a SYN, with the window scale option of its direction. */
static __always_inline void window_syn(struct xdp_md *ctx, const struct flow_key *key,
				       __u32 options, __u32 end)
{
	struct window fresh = { .wscale_state = WSCALE_NOT_OFFERED };

	for (int i = 0; i < TCP_MAX_OPTIONS && options < end; i++) {
		__u8 option[3] = {};

		/* An option of one byte may be the last byte of the frame. */
		if (bpf_xdp_load_bytes(ctx, options, option, sizeof(option)) &&
		    bpf_xdp_load_bytes(ctx, options, option, 1))
			break;
		if (option[0] == TCP_OPTION_END)
			break;
		if (option[0] == TCP_OPTION_NOP) {
			options++;
			continue;
		}
		if (option[0] == TCP_OPTION_WSCALE) {
			fresh.wscale_state = WSCALE_OFFERED;
			fresh.wscale = option[2] < TCP_WSCALE_MAX ? option[2] : TCP_WSCALE_MAX;
			break;
		}
		if (option[1] < 2)
			break;
		options += option[1];
	}
	bpf_map_update_elem(&windows, key, &fresh, BPF_ANY);
}

/* Mark a direction as unknown: one of its packets was not tracked. */
static __always_inline void window_invalidate(const struct flow_key *key)
{
	struct window *own = bpf_map_lookup_elem(&windows, key);

	if (own)
		own->known = 0;
}

/*
 * Window scale of a direction. Both directions have to offer the option (RFC 7323). If the SYN was
 * not seen, assume the maximum.
 */
static __always_inline __u32 window_scale(const struct window *own, const struct window *peer)
{
	if (own->wscale_state == WSCALE_NOT_OFFERED ||
	    (peer && peer->wscale_state == WSCALE_NOT_OFFERED))
		return 0;
	if (own->wscale_state == WSCALE_OFFERED)
		return own->wscale;
	return TCP_WSCALE_MAX;
}

/*
 * Check a segment against the window. A segment must not exceed what the peer allows, and must not
 * acknowledge data that the peer has not sent. A segment older than the window passes, so that the
 * receiver can answer it, but does not update the record.
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
			return true; /* the map is full: not tracked */
	}
	reverse_key(key, value, &back);
	peer = bpf_map_lookup_elem(&windows, &back);

	if (peer && peer->known) {
		slack = own->known && own->max_window > TCP_ACK_SLACK ? own->max_window :
									TCP_ACK_SLACK;
		if (before(peer->max_peer_end, seq))
			return false;
		if (own->known && before(end, own->end - peer->max_window))
			return true;
		if (before(peer->end, ack))
			return false;
		if (before(ack, peer->end - slack))
			return true;
	}

	size <<= window_scale(own, peer);
	size = size ?: 1; /* a zero window is probed with one byte */
	if (!own->known || before(own->end, end))
		own->end = end;
	if (!own->known || before(own->max_peer_end, ack + size))
		own->max_peer_end = ack + size;
	if (!own->known || own->max_window < size)
		own->max_window = size;
	own->known = 1;
	return true;
}

#endif
