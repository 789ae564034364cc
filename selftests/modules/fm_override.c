// SPDX-License-Identifier: GPL-2.0-only
/* Failures: a kernel function returns an error instead of running.
 *
 * Fault injection reaches a function that allocates, and those in the kernel's
 * list of functions that may fail (ALLOW_ERROR_INJECTION()). This is for the
 * others: those whose own failure is rare, and which nobody has listed. It is
 * up to the test that nothing which the function should have done is needed by
 * a caller that is told of the error.
 *
 * From the time it is loaded until it is unloaded, every call fails. It works
 * as a live patch does: ftrace lets another function return to the caller. For
 * what ftrace does not know, such as functions of lib/, a kprobe does so.
 */
#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/string.h>

static char *function = "";
module_param(function, charp, 0444);
MODULE_PARM_DESC(function, "kernel function that is to fail with ENOMEM");

static atomic_t failed = ATOMIC_INIT(0);

static int failed_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&failed));
}

static const struct kernel_param_ops failed_ops = { .get = failed_get };
module_param_cb(failed, &failed_ops, NULL, 0444);
MODULE_PARM_DESC(failed, "calls that have failed");

/* Its caller has put the arguments of another function into the registers. */
static noinline long fm_override_instead(void)
{
	atomic_inc(&failed);

	return -ENOMEM;
}

static void notrace fm_override_traced(unsigned long ip, unsigned long parent_ip,
				   struct ftrace_ops *ops,
				   struct ftrace_regs *fregs)
{
	ftrace_regs_set_instruction_pointer(fregs,
					    (unsigned long)fm_override_instead);
}

static struct ftrace_ops fm_override_ops = {
	.func	= fm_override_traced,
	.flags	= FTRACE_OPS_FL_IPMODIFY,
};

static int fm_override_probed(struct kprobe *kp, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)fm_override_instead);

	return 1;
}
NOKPROBE_SYMBOL(fm_override_probed);

/* A probe that has one is never made a jump, from which nobody comes back to
 * another place.
 */
static void fm_override_passed(struct kprobe *kp, struct pt_regs *regs,
			   unsigned long flags)
{
}

static struct kprobe fm_override_kp = {
	.pre_handler = fm_override_probed,
	.post_handler = fm_override_passed,
};

static bool traced;

static int fm_override_trace(void)
{
	int err;

	err = register_ftrace_function(&fm_override_ops);
	if (err)
		ftrace_free_filter(&fm_override_ops);
	traced = !err;

	return err;
}

static int __init fm_override_init(void)
{
	if (!ftrace_set_filter(&fm_override_ops, function, strlen(function), 1))
		return fm_override_trace();

	ftrace_free_filter(&fm_override_ops);
	fm_override_kp.symbol_name = function;

	return register_kprobe(&fm_override_kp);
}

static void __exit fm_override_exit(void)
{
	/* Both wait until nobody is in fm_override_instead() any more, either. */
	if (traced) {
		unregister_ftrace_function(&fm_override_ops);
		ftrace_free_filter(&fm_override_ops);
	} else {
		unregister_kprobe(&fm_override_kp);
		synchronize_rcu_tasks();
	}
}

module_init(fm_override_init);
module_exit(fm_override_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Let a kernel function fail, for the tests of error paths");
