// SPDX-License-Identifier: GPL-2.0-only
/*
 * A flow index with three flows and two views, as a kernel has it in memory. The structures have
 * only the members that fixtures/host/introspection/flow_tables.py reads.
 */
#include <stdint.h>

struct rhash_head { struct rhash_head *next; };
struct bucket_table {
	unsigned int size, nest;
	struct bucket_table *future_tbl;
	struct rhash_head *buckets[4];
};
struct counter { int counter; };
struct counter64 { long counter; };
struct rhashtable { struct bucket_table *tbl; struct counter nelems; };

struct ns_common { unsigned int inum; };
struct net { struct ns_common ns; };
struct nf_conn {
	struct { uint16_t id; uint8_t dir; } zone;
	struct { struct net *net; } ct_net;
};
struct in6_addr { uint8_t bytes[16]; };
struct flow_offload_tuple {
	struct in6_addr src_v6, dst_v6;
	uint16_t src_port, dst_port;
	int iifidx;
	uint8_t l3proto, l4proto;
	struct { uint16_t id, proto; } encap[2];
	struct { struct in6_addr src_v6, dst_v6; uint8_t inner_proto; } tun;
	uint16_t dir : 2, other : 14;
};
struct flow_offload_tuple_rhash { struct rhash_head node; struct flow_offload_tuple tuple; };
struct nf_flow_snoop_entry;
struct flow_offload {
	struct flow_offload_tuple_rhash tuplehash[2];
	struct nf_conn *ct;
	unsigned long flags;
	struct nf_flow_snoop_entry *snoop;
};

struct nf_flow_index;
struct nf_flow_snoop_hash {
	struct rhash_head node;
	uint32_t hash;
	uint16_t zone;
	uint8_t dir;
};
struct nf_flow_snoop_entry {
	struct nf_flow_snoop_hash hash[2];
	struct flow_offload *flow;
	unsigned long members[1];
	struct nf_flow_index *index;
};
struct list_head { struct list_head *next, *prev; };
struct nf_flow_snoop {
	unsigned long lacks;
	struct counter64 missed;
	uint8_t bit;
	struct list_head leave;
};
struct nf_flow_index {
	struct rhashtable hash;
	unsigned long active[1];
	struct counter64 flows;
	struct nf_flow_snoop *views[64];
};
struct nf_flowtable { struct rhashtable rhashtable; struct { struct net *net; } net; };

#define END ((struct rhash_head *)1) /* nulls marker */
#define DEAD ((struct nf_flow_snoop_entry *)-116L) /* ERR_PTR(-ESTALE) */

struct nf_flow_index fm_index, fm_other_index;
struct nf_flow_snoop_entry fm_entries[3];

static struct net net = { .ns.inum = 4711 };
static struct nf_conn both = { .zone = { 5, 3 }, .ct_net.net = &net };
static struct nf_conn only_reply = { .zone = { 6, 2 }, .ct_net.net = &net };

#define TUPLE(number, direction) { \
	.src_v6.bytes = { 192, 0, 2, number }, .dst_v6.bytes = { 198, 51, 100, number }, \
	.src_port = 0x3412, .dst_port = 0x5000, .iifidx = 7, .l3proto = 2, .l4proto = 17, \
	.encap = { { 100, 0x0081 } }, .dir = direction }

struct flow_offload fm_flows[3] = {
	{ .tuplehash = { { .node.next = END, .tuple = TUPLE(1, 0) },
			 { .node.next = END, .tuple = TUPLE(1, 1) } },
	  .ct = &both, .flags = 1, .snoop = &fm_entries[0] },
	{ .tuplehash = { { .node.next = END, .tuple = TUPLE(2, 0) },
			 { .node.next = END, .tuple = TUPLE(2, 1) } },
	  .ct = &only_reply, .snoop = &fm_entries[1] },
	{ .tuplehash = { { .node.next = END, .tuple = TUPLE(3, 0) },
			 { .node.next = END, .tuple = TUPLE(3, 1) } },
	  .ct = &both, .snoop = DEAD },
};

#define HASH(direction, zone_id, following) { \
	.node.next = following, .zone = zone_id, .dir = direction }

/*
 * Views 0, 3 and 5 have the first flow, view 3 the second one. The third flow has left the index,
 * but for one direction.
 */
struct nf_flow_snoop_entry fm_entries[3] = {
	{ { HASH(0, 5, &fm_entries[1].hash[0].node), HASH(1, 5, END) },
	  &fm_flows[0], { 41 }, &fm_index },
	{ { HASH(0, 0, END), HASH(1, 6, END) }, &fm_flows[1], { 8 }, &fm_index },
	{ { HASH(0, 5, END), HASH(1, 5, END) }, &fm_flows[2], { 8 }, 0 },
};

static struct bucket_table buckets = {
	.size = 4,
	.buckets = { &fm_entries[0].hash[0].node, &fm_entries[0].hash[1].node,
		     &fm_entries[1].hash[1].node, &fm_entries[2].hash[0].node },
};
static struct bucket_table flow_buckets = {
	.size = 4,
	.buckets = { &fm_flows[0].tuplehash[0].node, &fm_flows[1].tuplehash[0].node,
		     &fm_flows[1].tuplehash[1].node, &fm_flows[2].tuplehash[1].node },
};

struct nf_flow_snoop fm_map = { 1, { 0 }, 0 }, fm_table = { 0, { 40 }, 3 };
struct nf_flow_snoop fm_leaving = { 1, { 0 }, 5, { &fm_leaving.leave, &fm_leaving.leave } };
struct nf_flow_index fm_index = {
	.hash = { &buckets, { 5 } },
	.active = { 1 << 0 | 1 << 3 },
	.flows = { 2 },
	.views = { &fm_map, 0, 0, &fm_table, 0, &fm_leaving },
};
struct nf_flowtable fm_source = { .rhashtable = { &flow_buckets, { 4 } }, .net.net = &net };
