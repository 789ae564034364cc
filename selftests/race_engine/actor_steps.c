// SPDX-License-Identifier: GPL-2.0-only
/* What a thread does. Every step gives 0 or an errno. */
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

/* An empty path: where the thread was at first, which is where the process is. */
static int enter(const char *netns)
{
	int fd = open(*netns ? netns : "/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return -1;
	err = setns(fd, CLONE_NEWNET);
	close(fd);
	return err;
}

static int open_socket(struct endpoint *socket_)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_ifindex = socket_->ifindex,
	};

	if (*socket_->netns && enter(socket_->netns))
		return -1;
	socket_->fd = socket(socket_->domain, SOCK_RAW | SOCK_CLOEXEC,
			     socket_->protocol);
	if (socket_->fd < 0)
		return -1;
	if (socket_->domain != AF_PACKET)
		return 0;
	return bind(socket_->fd, (struct sockaddr *)&address, sizeof(address));
}

/* In the thread itself: a namespace, like a CPU, is a thread's own. */
int actor_setup(struct actor *actor)
{
	int moved = *actor->netns;
	cpu_set_t cpus;
	uint32_t i;

	CPU_ZERO(&cpus);
	CPU_SET(actor->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return -1;
	for (i = 0; i < actor->nsockets; i++) {
		moved |= *actor->sockets[i].netns;
		if (open_socket(&actor->sockets[i]))
			return -1;
	}
	return moved ? enter(actor->netns) : 0;
}

static void resolve(struct actor *actor, struct step *step)
{
	uint32_t i;

	for (i = 0; i < step->nlinks; i++) {
		const struct link *link = &step->links[i];
		uint8_t *at = step->data.data + link->at;
		uint64_t address;

		if (link->kind == LINK_REGISTER) {
			memcpy(at, &actor->reg[link->which], sizeof(int));
		} else {
			address = (uintptr_t)actor->buffers[link->which].data;
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

	resolve(actor, step);
	result = syscall(SYS_bpf, step->arg[0], step->data.data, step->data.len);
	if (result < 0)
		return errno;
	if (step->arg[1] != NONE)
		actor->reg[step->arg[1]] = result;
	return 0;
}

/* The kernel has answered a request of ours before the write returns. */
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
	const char *text = (char *)step->data.data;
	uint32_t which = step->arg[0];

	switch (step->kind) {
	case STEP_BPF:
		return do_bpf(actor, step);
	case STEP_CLOSE:
		return do_close(&actor->reg[which]);
	case STEP_NETLINK:
		return do_netlink(actor->sockets[which].fd, step);
	case STEP_SEND:
		return send(actor->sockets[which].fd, text, step->data.len, 0) < 0 ?
		       errno : 0;
	case STEP_OPEN:
		return do_open(&actor->reg[which], step);
	case STEP_LOAD:
		return syscall(SYS_finit_module, actor->reg[which], text, 0) ?
		       errno : 0;
	case STEP_UNLOAD:
		return syscall(SYS_delete_module, text, O_NONBLOCK) ? errno : 0;
	case STEP_EXPECT:
		return memcmp(actor->buffers[which].data + step->arg[1], text,
			      step->data.len) ? EILSEQ : 0;
	}
	return EINVAL;
}

static int do_steps(struct actor *actor, uint32_t *forgiven)
{
	uint32_t i;
	int err;

	for (i = 0; i < actor->nsteps; i++) {
		struct step *step = &actor->steps[i];

		err = do_step(actor, step);
		if (err && err == step->forgive) {
			(*forgiven)++;
			i += step->skip;
		} else if (err) {
			return err;
		}
	}
	return 0;
}

/* The first step that fails ends the round; what it leaves open is closed. */
void actor_round(struct actor *actor, struct call *call)
{
	uint32_t i;

	for (i = 0; i < actor->times && !call->error; i++)
		call->error = do_steps(actor, &call->forgiven);
	for (i = 0; i < REGISTERS; i++) {
		if (actor->reg[i] >= 0 && !actor->kept[i])
			do_close(&actor->reg[i]);
	}
}
