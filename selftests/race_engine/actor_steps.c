// SPDX-License-Identifier: GPL-2.0-only
/* The steps of an actor. Each step returns 0 or an errno. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plan.h"

/* An empty path is the netns of the process. */
static int enter_netns(const char *netns)
{
	int fd = open(*netns ? netns : "/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return -1;
	err = setns(fd, CLONE_NEWNET);
	close(fd);
	return err;
}

static int open_socket(struct actor_socket *sock)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_ifindex = sock->ifindex,
	};

	if (*sock->netns && enter_netns(sock->netns))
		return -1;
	sock->fd = socket(sock->domain, SOCK_RAW | SOCK_CLOEXEC,
			  sock->protocol);
	if (sock->fd < 0)
		return -1;
	if (sock->domain != AF_PACKET)
		return 0;
	return bind(sock->fd, (struct sockaddr *)&address, sizeof(address));
}

/* Called in the actor's thread: netns and CPU affinity are per thread. */
int actor_setup(struct actor *actor)
{
	int switch_netns = *actor->netns;
	cpu_set_t cpus;
	uint32_t i;

	CPU_ZERO(&cpus);
	CPU_SET(actor->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return -1;
	for (i = 0; i < actor->nsockets; i++) {
		switch_netns |= *actor->sockets[i].netns;
		if (open_socket(&actor->sockets[i]))
			return -1;
	}
	return switch_netns ? enter_netns(actor->netns) : 0;
}

static void apply_fixups(struct actor *actor, struct step *step)
{
	uint32_t i;

	for (i = 0; i < step->nfixups; i++) {
		const struct fixup *fixup = &step->fixups[i];
		uint8_t *at = step->data.data + fixup->offset;
		uint64_t address;

		if (fixup->kind == FIXUP_FD) {
			memcpy(at, &actor->reg[fixup->number], sizeof(int));
		} else {
			address = (uintptr_t)actor->buffers[fixup->number].data;
			memcpy(at, &address, sizeof(address));
		}
	}
}

static int do_close(int *fd)
{
	int err = close(*fd) ? errno : 0;

	*fd = -1;
	return err;
}

static int do_bpf(struct actor *actor, struct step *step)
{
	long result;

	apply_fixups(actor, step);
	result = syscall(SYS_bpf, step->arg[0], step->data.data, step->data.len);
	if (result < 0)
		return errno;
	if (step->arg[1] != NONE)
		actor->reg[step->arg[1]] = result;
	return 0;
}

/* The kernel queues its acks before send() returns. */
static int do_netlink(int fd, const struct step *step)
{
	uint32_t acks = 0;
	char answer[16384];
	int err = 0;
	ssize_t len;

	if (send(fd, step->data.data, step->data.len, 0) < 0)
		return errno;
	while ((len = recv(fd, answer, sizeof(answer), MSG_DONTWAIT)) > 0) {
		struct nlmsghdr *msg = (struct nlmsghdr *)answer;

		for (; NLMSG_OK(msg, len); msg = NLMSG_NEXT(msg, len)) {
			if (msg->nlmsg_type != NLMSG_ERROR)
				continue;
			acks++;
			if (!err)
				err = -((struct nlmsgerr *)NLMSG_DATA(msg))->error;
		}
	}
	if (err)
		return err;
	if (len < 0 && errno != EAGAIN)
		return errno;
	return acks == step->arg[1] ? 0 : EPROTO;
}

static int do_open(int *fd, const struct step *step)
{
	*fd = open((char *)step->data.data, O_RDONLY | O_CLOEXEC);
	return *fd < 0 ? errno : 0;
}

static int do_step(struct actor *actor, struct step *step)
{
	const char *data = (char *)step->data.data;
	uint32_t number = step->arg[0];

	switch (step->kind) {
	case STEP_BPF:
		return do_bpf(actor, step);
	case STEP_CLOSE:
		return do_close(&actor->reg[number]);
	case STEP_NETLINK:
		return do_netlink(actor->sockets[number].fd, step);
	case STEP_SEND:
		return send(actor->sockets[number].fd, data, step->data.len, 0) < 0 ?
		       errno : 0;
	case STEP_OPEN:
		return do_open(&actor->reg[number], step);
	case STEP_LOAD:
		return syscall(SYS_finit_module, actor->reg[number], data, 0) ?
		       errno : 0;
	case STEP_UNLOAD:
		return syscall(SYS_delete_module, data, O_NONBLOCK) ? errno : 0;
	case STEP_EXPECT:
		return memcmp(actor->buffers[number].data + step->arg[1], data,
			      step->data.len) ? EILSEQ : 0;
	}
	return EINVAL;
}

static int do_steps(struct actor *actor, uint32_t *tolerated)
{
	uint32_t i;
	int err;

	for (i = 0; i < actor->nsteps; i++) {
		struct step *step = &actor->steps[i];

		err = do_step(actor, step);
		if (err && err == step->tolerate) {
			(*tolerated)++;
			i += step->skip;
		} else if (err) {
			return err;
		}
	}
	return 0;
}

/*
 * The first step that fails ends the round. Descriptors that are not persistent
 * are closed at its end.
 */
void actor_round(struct actor *actor, struct round_result *result)
{
	uint32_t i;

	for (i = 0; i < actor->times && !result->error; i++)
		result->error = do_steps(actor, &result->tolerated);
	for (i = 0; i < REGISTERS; i++) {
		if (actor->reg[i] >= 0 && !actor->persistent[i])
			do_close(&actor->reg[i]);
	}
}
