// SPDX-License-Identifier: GPL-2.0-only
/* Reading a plan; whatever is wrong with it ends the program. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

void die(const char *what, const char *which)
{
	fprintf(stderr, "engine: %s %s: %s\n", what, which, strerror(errno));
	exit(2);
}

static void bad(const char *what)
{
	errno = EINVAL;
	die("plan:", what);
}

static void get(FILE *file, void *to, size_t size)
{
	if (size && fread(to, size, 1, file) != 1)
		bad("ends too early");
}

static uint32_t number(FILE *file)
{
	uint32_t value;

	get(file, &value, sizeof(value));
	return value;
}

static void *array(uint32_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die("plan:", "memory");
	return memory;
}

/* A zero behind the data makes strings of those that are. */
static struct blob blob(FILE *file)
{
	struct blob blob = { .len = number(file) };

	blob.data = array(1, (size_t)blob.len + 1);
	get(file, blob.data, blob.len);
	return blob;
}

static void read_step(FILE *file, struct step *step, const struct actor *actor)
{
	uint32_t i;

	step->kind = number(file);
	if (step->kind >= STEP_KINDS)
		bad("unknown step");
	for (i = 0; i < 4; i++)
		step->arg[i] = number(file);
	step->forgive = number(file);
	step->skip = number(file);
	step->data = blob(file);
	step->nlinks = number(file);
	step->links = array(step->nlinks, sizeof(*step->links));
	for (i = 0; i < step->nlinks; i++) {
		struct link *link = &step->links[i];
		size_t size;

		link->at = number(file);
		link->kind = number(file);
		link->which = number(file);
		size = link->kind == LINK_BUFFER ? 8 : 4;
		if (link->kind >= LINK_KINDS || link->at + size > step->data.len ||
		    link->which >= (link->kind == LINK_BUFFER ?
				    actor->nbuffers : REGISTERS))
			bad("link to nowhere");
	}
}

/* Are a step's arguments in the bounds of what they are indices of? */
static void check_step(const struct step *step, const struct actor *actor)
{
	const uint32_t *arg = step->arg;
	const struct blob *buffer;

	switch (step->kind) {
	case STEP_BPF:
		if (arg[1] != NONE && arg[1] >= REGISTERS)
			bad("no such register");
		break;
	case STEP_CLOSE:
	case STEP_LOAD:
	case STEP_OPEN:
		if (arg[0] >= REGISTERS)
			bad("no such register");
		break;
	case STEP_NETLINK:
	case STEP_SEND:
		if (arg[0] >= actor->nsockets)
			bad("no such socket");
		break;
	case STEP_EXPECT:
		if (arg[0] >= actor->nbuffers)
			bad("no such buffer");
		buffer = &actor->buffers[arg[0]];
		if ((uint64_t)arg[1] + step->data.len > buffer->len)
			bad("expectation beyond its buffer");
		break;
	}
}

static void read_actor(FILE *file, struct actor *actor, uint32_t rounds)
{
	uint32_t i;

	actor->cpu = number(file);
	actor->times = number(file);
	actor->netns = (char *)blob(file).data;
	actor->nsockets = number(file);
	actor->sockets = array(actor->nsockets, sizeof(*actor->sockets));
	for (i = 0; i < actor->nsockets; i++) {
		actor->sockets[i].domain = number(file);
		actor->sockets[i].protocol = number(file);
		actor->sockets[i].ifindex = number(file);
		actor->sockets[i].netns = (char *)blob(file).data;
	}
	actor->nbuffers = number(file);
	actor->buffers = array(actor->nbuffers, sizeof(*actor->buffers));
	for (i = 0; i < actor->nbuffers; i++)
		actor->buffers[i] = blob(file);
	actor->nsteps = number(file);
	actor->steps = array(actor->nsteps, sizeof(*actor->steps));
	for (i = 0; i < actor->nsteps; i++) {
		read_step(file, &actor->steps[i], actor);
		check_step(&actor->steps[i], actor);
	}
	for (i = 0; i < REGISTERS; i++)
		actor->reg[i] = -1;
	for (i = 0; i < actor->nsteps; i++) {
		const struct step *step = &actor->steps[i];

		if (step->kind == STEP_BPF && step->arg[1] != NONE)
			actor->kept[step->arg[1]] = step->arg[2];
	}
	actor->calls = array(rounds, sizeof(*actor->calls));
}

struct plan *plan_read(const char *path)
{
	struct plan *plan = array(1, sizeof(*plan));
	FILE *file = fopen(path, "rb");
	uint32_t i;

	if (!file)
		die("plan", path);
	if (number(file) != PLAN_MAGIC || number(file) != PLAN_VERSION)
		bad("not one, or another version's");
	plan->rounds = number(file);
	get(file, &plan->seed, sizeof(plan->seed));
	plan->jitter_ns = number(file);
	plan->patience_s = number(file);
	plan->nactors = number(file);
	plan->actors = array(plan->nactors, sizeof(*plan->actors));
	for (i = 0; i < plan->nactors; i++)
		read_actor(file, &plan->actors[i], plan->rounds);
	if (fgetc(file) != EOF)
		bad("goes on behind its end");
	fclose(file);
	return plan;
}
