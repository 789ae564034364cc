// SPDX-License-Identifier: GPL-2.0-only
/* Reads and validates a plan; an invalid plan ends the program. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

void die(const char *what, const char *detail)
{
	fprintf(stderr, "race_engine: %s %s: %s\n", what, detail, strerror(errno));
	exit(2);
}

static void invalid_plan(const char *reason)
{
	errno = EINVAL;
	die("plan:", reason);
}

static void read_bytes(FILE *file, void *to, size_t size)
{
	if (size && fread(to, size, 1, file) != 1)
		invalid_plan("unexpected end of file");
}

static uint32_t read_u32(FILE *file)
{
	uint32_t value;

	read_bytes(file, &value, sizeof(value));
	return value;
}

static void *alloc_array(uint32_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die("plan:", "memory");
	return memory;
}

/* The data is followed by a zero byte, so that it can be used as a string. */
static struct blob read_blob(FILE *file)
{
	struct blob blob = { .len = read_u32(file) };

	blob.data = alloc_array(1, (size_t)blob.len + 1);
	read_bytes(file, blob.data, blob.len);
	return blob;
}

static void read_step(FILE *file, struct step *step, const struct actor *actor)
{
	uint32_t i;

	step->kind = read_u32(file);
	if (step->kind >= STEP_KINDS)
		invalid_plan("unknown step");
	for (i = 0; i < 4; i++)
		step->arg[i] = read_u32(file);
	step->tolerate = read_u32(file);
	step->skip = read_u32(file);
	step->data = read_blob(file);
	step->nfixups = read_u32(file);
	step->fixups = alloc_array(step->nfixups, sizeof(*step->fixups));
	for (i = 0; i < step->nfixups; i++) {
		struct fixup *fixup = &step->fixups[i];
		size_t size;

		fixup->offset = read_u32(file);
		fixup->kind = read_u32(file);
		fixup->number = read_u32(file);
		size = fixup->kind == FIXUP_BUFFER ? 8 : 4;
		if (fixup->kind >= FIXUP_KINDS ||
		    fixup->offset + size > step->data.len ||
		    fixup->number >= (fixup->kind == FIXUP_BUFFER ?
				      actor->nbuffers : REGISTERS))
			invalid_plan("fixup out of range");
	}
}

/* Check that the registers, sockets and buffers of a step's arguments exist. */
static void check_step(const struct step *step, const struct actor *actor)
{
	const uint32_t *arg = step->arg;
	const struct blob *buffer;

	switch (step->kind) {
	case STEP_BPF:
		if (arg[1] != NONE && arg[1] >= REGISTERS)
			invalid_plan("no such register");
		break;
	case STEP_CLOSE:
	case STEP_LOAD:
	case STEP_OPEN:
		if (arg[0] >= REGISTERS)
			invalid_plan("no such register");
		break;
	case STEP_NETLINK:
	case STEP_SEND:
		if (arg[0] >= actor->nsockets)
			invalid_plan("no such socket");
		break;
	case STEP_EXPECT:
		if (arg[0] >= actor->nbuffers)
			invalid_plan("no such buffer");
		buffer = &actor->buffers[arg[0]];
		if ((uint64_t)arg[1] + step->data.len > buffer->len)
			invalid_plan("expectation beyond its buffer");
		break;
	}
}

static void read_actor(FILE *file, struct actor *actor, uint32_t rounds)
{
	uint32_t i;

	actor->cpu = read_u32(file);
	actor->times = read_u32(file);
	actor->netns = (char *)read_blob(file).data;
	actor->nsockets = read_u32(file);
	actor->sockets = alloc_array(actor->nsockets, sizeof(*actor->sockets));
	for (i = 0; i < actor->nsockets; i++) {
		actor->sockets[i].domain = read_u32(file);
		actor->sockets[i].protocol = read_u32(file);
		actor->sockets[i].ifindex = read_u32(file);
		actor->sockets[i].netns = (char *)read_blob(file).data;
	}
	actor->nbuffers = read_u32(file);
	actor->buffers = alloc_array(actor->nbuffers, sizeof(*actor->buffers));
	for (i = 0; i < actor->nbuffers; i++)
		actor->buffers[i] = read_blob(file);
	actor->nsteps = read_u32(file);
	actor->steps = alloc_array(actor->nsteps, sizeof(*actor->steps));
	for (i = 0; i < actor->nsteps; i++) {
		read_step(file, &actor->steps[i], actor);
		check_step(&actor->steps[i], actor);
	}
	for (i = 0; i < REGISTERS; i++)
		actor->reg[i] = -1;
	for (i = 0; i < actor->nsteps; i++) {
		const struct step *step = &actor->steps[i];

		if (step->kind == STEP_BPF && step->arg[1] != NONE)
			actor->persistent[step->arg[1]] = step->arg[2];
	}
	actor->results = alloc_array(rounds, sizeof(*actor->results));
}

struct plan *plan_read(const char *path)
{
	struct plan *plan = alloc_array(1, sizeof(*plan));
	FILE *file = fopen(path, "rb");
	uint32_t i;

	if (!file)
		die("plan", path);
	if (read_u32(file) != PLAN_MAGIC || read_u32(file) != PLAN_VERSION)
		invalid_plan("wrong magic or version");
	plan->rounds = read_u32(file);
	read_bytes(file, &plan->seed, sizeof(plan->seed));
	plan->jitter_ns = read_u32(file);
	plan->timeout_s = read_u32(file);
	plan->nactors = read_u32(file);
	plan->actors = alloc_array(plan->nactors, sizeof(*plan->actors));
	for (i = 0; i < plan->nactors; i++)
		read_actor(file, &plan->actors[i], plan->rounds);
	if (fgetc(file) != EOF)
		invalid_plan("data after the end");
	fclose(file);
	return plan;
}
