// SPDX-License-Identifier: GPL-2.0-only
/*
 * Race engine: executes a plan in threads that start each round at the same
 * time.
 *
 *	engine PLAN RESULTS
 *
 * Each actor of the plan is a thread. A round begins at a spin barrier; after
 * it each actor waits for a time drawn from the seed. RESULTS gets a struct
 * round_result for each actor and round, actor by actor.
 *
 * Exit status: 0; 2: the plan is invalid or cannot be set up; 3: an actor did
 * not reach the barrier before the timeout.
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
static _Atomic uint64_t arrivals;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* Deterministic: the same seed gives the same numbers on every machine. */
static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Wait until every actor has reached the barrier of this round. */
static void barrier(uint32_t round)
{
	uint64_t expected = (uint64_t)plan->nactors * (round + 1);
	uint64_t deadline = now_ns() + plan->timeout_s * 1000000000ULL;

	atomic_fetch_add(&arrivals, 1);
	while (atomic_load_explicit(&arrivals, memory_order_acquire) < expected) {
		if (now_ns() > deadline) {
			fprintf(stderr,
				"race_engine: timeout at the barrier of round %u\n",
				round);
			_exit(3);
		}
	}
}

static void *actor_thread(void *arg)
{
	struct actor *actor = arg;
	uint64_t prng = plan->seed + 0x632be59bd9b4e019 * (actor - plan->actors);
	uint64_t until;
	uint32_t i;

	if (actor_setup(actor))
		die("actor set-up", actor->netns);
	for (i = 0; i < plan->rounds; i++) {
		struct round_result *result = &actor->results[i];

		barrier(i);
		if (plan->jitter_ns)
			result->jitter = splitmix64(&prng) % plan->jitter_ns;
		until = now_ns() + result->jitter;
		while ((result->begin = now_ns()) < until)
			;
		actor_round(actor, result);
		result->end = now_ns();
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
		die("threads", "memory");
	for (i = 0; i < plan->nactors; i++) {
		errno = pthread_create(&threads[i], NULL, actor_thread,
				       &plan->actors[i]);
		if (errno)
			die("pthread_create", "");
	}
	for (i = 0; i < plan->nactors; i++)
		pthread_join(threads[i], NULL);

	out = fopen(argv[2], "wb");
	if (!out)
		die("results", argv[2]);
	for (i = 0; i < plan->nactors; i++)
		fwrite(plan->actors[i].results, sizeof(struct round_result),
		       plan->rounds, out);
	if (fclose(out))
		die("results", argv[2]);
	return 0;
}
