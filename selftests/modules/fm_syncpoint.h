/* SPDX-License-Identifier: GPL-2.0-only */
/* ioctl interface of /dev/fm_syncpoint; see fm_syncpoint.c. */
#ifndef FM_SYNCPOINT_H
#define FM_SYNCPOINT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FM_SYNCPOINT_SYMBOL_LEN	128
#define FM_SYNCPOINT_COMM_LEN	16

/**
 * struct fm_syncpoint_config - which task is held, and where
 * @symbol: name of a kernel function
 * @comm: prefix of the task's name; empty: any task
 * @offset: offset in bytes into the function, for a kprobe there; negative: the
 *	function's entry, for an ftrace callback
 * @tgid: process (thread group) of the task; 0: any
 * @cpu: CPU that the task runs on; negative: any
 * @skip: number of matching calls that pass before one is held
 * @timeout_ms: the held task continues by itself after this time
 */
struct fm_syncpoint_config {
	char	symbol[FM_SYNCPOINT_SYMBOL_LEN];
	char	comm[FM_SYNCPOINT_COMM_LEN];
	__s32	offset;
	__s32	tgid;
	__s32	cpu;
	__u32	skip;
	__u32	timeout_ms;
};

enum fm_syncpoint_phase {
	FM_SYNCPOINT_ARMED,	/* no task has been held yet */
	FM_SYNCPOINT_HELD,	/* a task is being held */
	FM_SYNCPOINT_RELEASED,	/* the test released the task */
	FM_SYNCPOINT_TIMED_OUT,	/* the task continued after timeout_ms */
};

/**
 * struct fm_syncpoint_state - what has happened at the syncpoint
 * @phase: enum fm_syncpoint_phase
 * @tid: thread id of the held task
 * @cpu: CPU of the task when it was held
 * @slept: whether the task slept; otherwise it spun
 * @comm: name of the task
 */
struct fm_syncpoint_state {
	__u32	phase;
	__s32	tid;
	__s32	cpu;
	__u32	slept;
	char	comm[FM_SYNCPOINT_COMM_LEN];
};

#define FM_SYNCPOINT_ARM	_IOW('F', 0x50, struct fm_syncpoint_config)
#define FM_SYNCPOINT_GET_STATE	_IOR('F', 0x51, struct fm_syncpoint_state)
#define FM_SYNCPOINT_RELEASE	_IO('F', 0x52)

#endif
