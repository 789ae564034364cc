/* SPDX-License-Identifier: GPL-2.0-only */
/* What a test says to /dev/fm_syncpoint; see fm_syncpoint.c. */
#ifndef FM_SYNCPOINT_H
#define FM_SYNCPOINT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FM_SYNCPOINT_SYMBOL	128
#define FM_SYNCPOINT_COMM	16

/**
 * struct fm_syncpoint_point - where to hold whom
 * @symbol: name of a kernel function
 * @comm: what the task's name starts with; empty: any
 * @offset: bytes into the function, for a kprobe there; negative: its entry, for
 *	a callback of ftrace
 * @tgid: the process; 0: any
 * @cpu: the CPU; negative: any
 * @skip: how often to let those pass who would be held
 * @timeout_ms: the held task goes on by itself after that long
 */
struct fm_syncpoint_point {
	char	symbol[FM_SYNCPOINT_SYMBOL];
	char	comm[FM_SYNCPOINT_COMM];
	__s32	offset;
	__s32	tgid;
	__s32	cpu;
	__u32	skip;
	__u32	timeout_ms;
};

enum fm_syncpoint_phase {
	FM_SYNCPOINT_ARMED,		/* nobody has come */
	FM_SYNCPOINT_HELD,		/* somebody is there */
	FM_SYNCPOINT_RELEASED,	/* went on because it was told to */
	FM_SYNCPOINT_TIMED_OUT,	/* went on by itself */
};

/**
 * struct fm_syncpoint_state - what has happened
 * @phase: enum fm_syncpoint_phase
 * @tid: who was held
 * @cpu: where it was when it came
 * @slept: whether it slept instead of spinning
 * @comm: its name
 */
struct fm_syncpoint_state {
	__u32	phase;
	__s32	tid;
	__s32	cpu;
	__u32	slept;
	char	comm[FM_SYNCPOINT_COMM];
};

#define FM_SYNCPOINT_ARM	_IOW('F', 0x50, struct fm_syncpoint_point)
#define FM_SYNCPOINT_LOOK	_IOR('F', 0x51, struct fm_syncpoint_state)
#define FM_SYNCPOINT_RELEASE	_IO('F', 0x52)

#endif
