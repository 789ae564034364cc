/* SPDX-License-Identifier: GPL-2.0-only */
/* The engine's plan, as fixtures/guest/race/native_race_plan.py writes it: numbers of 32 bits in
 * the machine's order, and blobs, each with its length before it.
 *
 *	magic, version, rounds, seed (two numbers), jitter in ns, patience in s
 *	number of threads, and of each
 *		cpu, how often a round does its steps, namespace (a path, or empty)
 *		number of sockets, and of each
 *			domain, protocol, ifindex, namespace (as the thread's)
 *		number of buffers: blobs
 *		number of steps, and of each
 *			what, four arguments, forgiven errno, steps then skipped
 *			data: a blob
 *			number of links: into the data, at, kind, which
 */
#ifndef PLAN_H
#define PLAN_H

#include <stddef.h>
#include <stdint.h>

#define PLAN_MAGIC	0x464d5243
#define PLAN_VERSION	1
#define REGISTERS	8

enum step_kind {
	STEP_BPF,	/* command, register for the result or NONE, kept or not */
	STEP_CLOSE,	/* register */
	STEP_NETLINK,	/* socket, acknowledgements expected */
	STEP_SEND,	/* socket */
	STEP_LOAD,	/* register with the file; data: parameters */
	STEP_UNLOAD,	/* data: name */
	STEP_OPEN,	/* register; data: path */
	STEP_EXPECT,	/* buffer, offset; data: what has to be there */
	STEP_KINDS
};

#define NONE	UINT32_MAX

enum link_kind {
	LINK_REGISTER,	/* 32 bits: the descriptor in a register */
	LINK_BUFFER,	/* 64 bits: the address of a buffer */
	LINK_KINDS
};

struct blob {
	uint32_t len;
	uint8_t *data;
};

struct link {
	uint32_t at;
	uint32_t kind;
	uint32_t which;
};

struct step {
	uint32_t kind;
	uint32_t arg[4];
	int32_t forgive;
	uint32_t skip;
	struct blob data;
	uint32_t nlinks;
	struct link *links;
};

struct endpoint {
	uint32_t domain;
	uint32_t protocol;
	uint32_t ifindex;
	char *netns;
	int fd;
};

/* One thread's part in one round; what the results file is made of. */
struct call {
	uint64_t begin;
	uint64_t end;
	int32_t error;
	uint32_t forgiven;
	uint64_t jitter;
};

struct actor {
	uint32_t cpu;
	uint32_t times;
	char *netns;
	uint32_t nsockets;
	struct endpoint *sockets;
	uint32_t nbuffers;
	struct blob *buffers;
	uint32_t nsteps;
	struct step *steps;

	int reg[REGISTERS];
	/* those that stay open from round to round */
	int kept[REGISTERS];
	struct call *calls;
};

struct plan {
	uint32_t rounds;
	uint64_t seed;
	uint32_t jitter_ns;
	uint32_t patience_s;
	uint32_t nactors;
	struct actor *actors;
};

void die(const char *what, const char *which) __attribute__((noreturn));
struct plan *plan_read(const char *path);
int actor_setup(struct actor *actor);
void actor_round(struct actor *actor, struct call *call);

#endif
