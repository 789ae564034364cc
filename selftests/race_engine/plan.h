/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The plan that the race engine executes, as written by
 * fixtures/guest/race/native_race_plan.py: 32-bit numbers in host byte order,
 * and blobs, each preceded by its length.
 *
 *	magic, version, number of rounds, seed (64 bits), jitter in ns,
 *	barrier timeout in s
 *	number of actors, and for each actor:
 *		cpu, repetitions of its steps per round, netns (a path, or empty)
 *		number of sockets, and for each socket:
 *			domain, protocol, ifindex, netns (a path, or empty)
 *		number of buffers, and for each buffer: a blob
 *		number of steps, and for each step:
 *			kind, four arguments, tolerated errno, number of
 *			steps to skip after that errno
 *			data: a blob
 *			number of fixups, and for each fixup:
 *				offset in data, kind, register or buffer
 */
#ifndef PLAN_H
#define PLAN_H

#include <stddef.h>
#include <stdint.h>

#define PLAN_MAGIC	0x464d5243
#define PLAN_VERSION	1
#define REGISTERS	8

enum step_kind {
	STEP_BPF,	/* command, register for the result or NONE, persistent */
	STEP_CLOSE,	/* register */
	STEP_NETLINK,	/* socket, expected number of acks */
	STEP_SEND,	/* socket */
	STEP_LOAD,	/* register with the module file; data: parameters */
	STEP_UNLOAD,	/* data: module name */
	STEP_OPEN,	/* register; data: path */
	STEP_EXPECT,	/* buffer, offset; data: expected content */
	STEP_KINDS
};

#define NONE	UINT32_MAX

/* A fixup writes a value into a step's data before the step is executed. */
enum fixup_kind {
	FIXUP_FD,	/* 32 bits: the descriptor in a register */
	FIXUP_BUFFER,	/* 64 bits: the address of a buffer */
	FIXUP_KINDS
};

struct blob {
	uint32_t len;
	uint8_t *data;
};

struct fixup {
	uint32_t offset;
	uint32_t kind;
	uint32_t number;
};

struct step {
	uint32_t kind;
	uint32_t arg[4];
	int32_t tolerate;
	uint32_t skip;
	struct blob data;
	uint32_t nfixups;
	struct fixup *fixups;
};

struct actor_socket {
	uint32_t domain;
	uint32_t protocol;
	uint32_t ifindex;
	char *netns;
	int fd;
};

/* Result of one actor in one round; written to the results file as is. */
struct round_result {
	uint64_t begin;
	uint64_t end;
	int32_t error;
	uint32_t tolerated;
	uint64_t jitter;
};

struct actor {
	uint32_t cpu;
	uint32_t times;
	char *netns;
	uint32_t nsockets;
	struct actor_socket *sockets;
	uint32_t nbuffers;
	struct blob *buffers;
	uint32_t nsteps;
	struct step *steps;

	int reg[REGISTERS];
	/* descriptors that stay open from one round to the next */
	int persistent[REGISTERS];
	struct round_result *results;
};

struct plan {
	uint32_t rounds;
	uint64_t seed;
	uint32_t jitter_ns;
	uint32_t timeout_s;
	uint32_t nactors;
	struct actor *actors;
};

void die(const char *what, const char *detail) __attribute__((noreturn));
struct plan *plan_read(const char *path);
int actor_setup(struct actor *actor);
void actor_round(struct actor *actor, struct round_result *result);

#endif
