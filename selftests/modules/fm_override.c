// SPDX-License-Identifier: GPL-2.0-only
/* Function override: a kernel function returns -ENOMEM instead of running.
 *
 * Fault injection reaches functions that allocate memory, and functions that the
 * kernel lists with ALLOW_ERROR_INJECTION(). This module serves the other
 * functions, whose own failure is rare. The test has to make sure that a caller
 * which gets the error does not need anything that the function would have done.
 *
 * Every call fails from module load to module unload. The module works like a
 * live patch: an ftrace callback sets the instruction pointer to another
 * function, which returns to the caller. A kprobe does the same for functions
 * that ftrace does not know, such as those of lib/.
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
MODULE_PARM_DESC(function, "kernel function that fails with ENOMEM");

static atomic_t failed = ATOMIC_INIT(0);

static int failed_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&failed));
}

static const struct kernel_param_ops failed_ops = { .get = failed_get };
module_param_cb(failed, &failed_ops, NULL, 0444);
MODULE_PARM_DESC(failed, "number of calls that have failed");

/* Runs in place of the function; the registers hold that function's arguments. */
static noinline long fm_override_return_enomem(void)
{
	atomic_inc(&failed);

	return -ENOMEM;
}

static void notrace fm_override_ftrace(unsigned long ip, unsigned long parent_ip,
				       struct ftrace_ops *ops,
				       struct ftrace_regs *fregs)
{
	ftrace_regs_set_instruction_pointer(fregs,
					    (unsigned long)fm_override_return_enomem);
}

static struct ftrace_ops fm_override_ops = {
	.func	= fm_override_ftrace,
	.flags	= FTRACE_OPS_FL_IPMODIFY,
};

static int fm_override_kprobe_pre(struct kprobe *kp, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)fm_override_return_enomem);

	return 1;
}
NOKPROBE_SYMBOL(fm_override_kprobe_pre);

/* A post_handler keeps the kprobe from being optimised to a jump, under which
 * the instruction pointer cannot be changed.
 */
static void fm_override_kprobe_post(struct kprobe *kp, struct pt_regs *regs,
				    unsigned long flags)
{
}

static struct kprobe fm_override_kp = {
	.pre_handler = fm_override_kprobe_pre,
	.post_handler = fm_override_kprobe_post,
};

static bool uses_ftrace;

static int fm_override_register_ftrace(void)
{
	int err;

	err = register_ftrace_function(&fm_override_ops);
	if (err)
		ftrace_free_filter(&fm_override_ops);
	uses_ftrace = !err;

	return err;
}

static int __init fm_override_init(void)
{
	if (!ftrace_set_filter(&fm_override_ops, function, strlen(function), 1))
		return fm_override_register_ftrace();

	ftrace_free_filter(&fm_override_ops);
	fm_override_kp.symbol_name = function;

	return register_kprobe(&fm_override_kp);
}

static void __exit fm_override_exit(void)
{
	/* Both branches also wait until no task runs fm_override_return_enomem(). */
	if (uses_ftrace) {
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
MODULE_DESCRIPTION("Make a kernel function return ENOMEM, for tests of error paths");
