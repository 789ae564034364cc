// SPDX-License-Identifier: GPL-2.0-only
/* Threads that do prepared steps at the same moment, round after round.
 *
 *	engine PLAN RESULTS
 *
 * A round begins at a barrier on which the threads spin; behind it each waits
 * for a time drawn from the seed. RESULTS gets a struct call for each thread and
 * round, thread by thread. Exit status: 0; 2, the plan cannot be carried out;
 * 3, a thread did not come to the barrier in time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "plan.h"

static struct plan *plan;
static _Atomic uint64_t arrived;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* splitmix64: the same numbers for the same seed, on any machine. */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Every thread passes the nth barrier once all have come to it n times. */
static void barrier(uint32_t number)
{
	uint64_t all = (uint64_t)plan->nactors * (number + 1);
	uint64_t end = now() + plan->patience_s * 1000000000ULL;

	atomic_fetch_add(&arrived, 1);
	while (atomic_load_explicit(&arrived, memory_order_acquire) < all) {
		if (now() > end) {
			fprintf(stderr, "engine: the others did not come to round %u\n",
				number);
			_exit(3);
		}
	}
}

static void *work(void *arg)
{
	struct actor *actor = arg;
	uint64_t chance = plan->seed + 0x632be59bd9b4e019 * (actor - plan->actors);
	uint64_t until;
	uint32_t i;

	if (actor_setup(actor))
		die("setting up", actor->netns);
	for (i = 0; i < plan->rounds; i++) {
		struct call *call = &actor->calls[i];

		barrier(i);
		if (plan->jitter_ns)
			call->jitter = draw(&chance) % plan->jitter_ns;
		until = now() + call->jitter;
		while ((call->begin = now()) < until)
			;
		actor_round(actor, call);
		call->end = now();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t *threads;
	uint32_t i;
	FILE *out;

	if (argc != 3) {
		fprintf(stderr, "usage: engine PLAN RESULTS\n");
		return 2;
	}
	plan = plan_read(argv[1]);
	threads = calloc(plan->nactors + 1, sizeof(*threads));
	if (!threads)
		die("threads:", "memory");
	for (i = 0; i < plan->nactors; i++) {
		errno = pthread_create(&threads[i], NULL, work, &plan->actors[i]);
		if (errno)
			die("thread", "");
	}
	for (i = 0; i < plan->nactors; i++)
		pthread_join(threads[i], NULL);

	out = fopen(argv[2], "wb");
	if (!out)
		die("results", argv[2]);
	for (i = 0; i < plan->nactors; i++)
		fwrite(plan->actors[i].calls, sizeof(struct call), plan->rounds, out);
	if (fclose(out))
		die("results", argv[2]);
	return 0;
}
