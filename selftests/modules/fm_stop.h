/* SPDX-License-Identifier: GPL-2.0-only */
/* What a test says to /dev/fm_stop; see fm_stop.c. */
#ifndef FM_STOP_H
#define FM_STOP_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FM_STOP_SYMBOL	128
#define FM_STOP_COMM	16

/**
 * struct fm_stop_point - where to hold whom
 * @symbol: name of a kernel function
 * @comm: what the task's name starts with; empty: any
 * @offset: bytes into the function, for a kprobe there; negative: its entry, for
 *	a callback of ftrace
 * @tgid: the process; 0: any
 * @cpu: the CPU; negative: any
 * @skip: how often to let those pass who would be held
 * @timeout_ms: the held task goes on by itself after that long
 */
struct fm_stop_point {
	char	symbol[FM_STOP_SYMBOL];
	char	comm[FM_STOP_COMM];
	__s32	offset;
	__s32	tgid;
	__s32	cpu;
	__u32	skip;
	__u32	timeout_ms;
};

enum fm_stop_phase {
	FM_STOP_ARMED,		/* nobody has come */
	FM_STOP_HELD,		/* somebody is there */
	FM_STOP_RELEASED,	/* went on because it was told to */
	FM_STOP_TIMED_OUT,	/* went on by itself */
};

/**
 * struct fm_stop_state - what has happened
 * @phase: enum fm_stop_phase
 * @tid: who was held
 * @cpu: where it was when it came
 * @slept: whether it slept instead of spinning
 * @comm: its name
 */
struct fm_stop_state {
	__u32	phase;
	__s32	tid;
	__s32	cpu;
	__u32	slept;
	char	comm[FM_STOP_COMM];
};

#define FM_STOP_ARM	_IOW('F', 0x50, struct fm_stop_point)
#define FM_STOP_LOOK	_IOR('F', 0x51, struct fm_stop_state)
#define FM_STOP_RELEASE	_IO('F', 0x52)

#endif
