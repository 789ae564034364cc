// SPDX-License-Identifier: GPL-2.0-only
/* Suspend without suspending: CLOCK_BOOTTIME and CLOCK_REALTIME jump forward.
 *
 * The module tells timekeeping at load, as an RTC driver does at resume, that the
 * machine slept for a time. CLOCK_MONOTONIC and jiffies go on as before. The
 * function is not exported: a kprobe finds it, and a second one leads a function
 * of this module there. That needs no indirect call, which the function does not
 * permit on CPUs with indirect branch tracking.
 */
#include <linux/errno.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/time64.h>

static unsigned int seconds;
module_param(seconds, uint, 0444);
MODULE_PARM_DESC(seconds, "time that the machine slept");

static struct kprobe fm_sleeptime_target = {
	.symbol_name = "timekeeping_inject_sleeptime64",
};

static bool called;

static noinline void fm_sleeptime_inject(const struct timespec64 *delta)
{
	/* Keeps the compiler from leaving the argument out. */
	asm volatile("" : : "r" (delta) : "memory");
}

static int fm_sleeptime_pre(struct kprobe *kp, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)fm_sleeptime_target.addr);
	called = true;

	return 1;
}
NOKPROBE_SYMBOL(fm_sleeptime_pre);

/* A post_handler keeps the kprobe from being optimised to a jump, under which
 * the instruction pointer cannot be changed.
 */
static void fm_sleeptime_post(struct kprobe *kp, struct pt_regs *regs,
			      unsigned long flags)
{
}

static struct kprobe fm_sleeptime_stub = {
	.addr = (kprobe_opcode_t *)fm_sleeptime_inject,
	.pre_handler = fm_sleeptime_pre,
	.post_handler = fm_sleeptime_post,
};

static int __init fm_sleeptime_init(void)
{
	struct timespec64 delta = { .tv_sec = seconds };
	int err;

	err = register_kprobe(&fm_sleeptime_target);
	if (err)
		return err;
	/* What stays is its address. */
	unregister_kprobe(&fm_sleeptime_target);

	err = register_kprobe(&fm_sleeptime_stub);
	if (err)
		return err;
	fm_sleeptime_inject(&delta);
	unregister_kprobe(&fm_sleeptime_stub);

	return called ? 0 : -EIO;
}

static void __exit fm_sleeptime_exit(void)
{
}

module_init(fm_sleeptime_init);
module_exit(fm_sleeptime_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Move CLOCK_BOOTTIME forward as a suspend does, for tests");
