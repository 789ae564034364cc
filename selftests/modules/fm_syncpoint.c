// SPDX-License-Identifier: GPL-2.0-only
/* Syncpoints: hold one task at a kernel function until a test releases it.
 *
 * Each open file of /dev/fm_syncpoint is one syncpoint, see fm_syncpoint.h.
 * Closing the file releases the task and removes the probe, so that a test that
 * died leaves nothing behind.
 *
 * A kprobe handler runs with preemption disabled and can only spin. The CPU is
 * then lost to all other tasks, and no grace period ends. But a race window in a
 * task that may sleep is often one in which another task waits for a grace
 * period. At a function's entry an ftrace callback therefore holds the task. The
 * callback runs in the context of the function: without FTRACE_OPS_FL_RECURSION
 * and FTRACE_OPS_FL_RCU, ftrace calls it from a trampoline of its own and leaves
 * preemption as the caller had it. The task
 *
 * - sleeps where the function may sleep;
 * - spins, but can be preempted, in an RCU read-side critical section;
 * - spins where the function is atomic. The test then has to make sure that what
 *   it does meanwhile needs neither that CPU nor a grace period.
 *
 * A kprobe serves offsets within a function, and entries of functions that
 * ftrace does not know, such as those of lib/. It is a breakpoint, which x86
 * handles like an NMI: the task always spins, with interrupts off.
 */
#include <linux/atomic.h>
#include <linux/compat.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nmi.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#include "fm_syncpoint.h"

/* The soft lockup detector warns after 20 seconds, RCU's stall detector after 21. */
#define FM_SYNCPOINT_MAX_MS	15000

struct fm_syncpoint {
	struct ftrace_ops		ops;
	struct kprobe			kp;
	struct fm_syncpoint_config	config;
	struct fm_syncpoint_state	state;
	/* enum fm_syncpoint_phase; the held task writes state before it sets HELD */
	atomic_t			phase;
	/* number of matching calls that still pass; negative once one is held */
	atomic_t			skip;
	bool				released;
	/* serialises FM_SYNCPOINT_ARM; protects armed */
	struct mutex			lock;
	bool				armed;
};

static bool fm_syncpoint_matches(const struct fm_syncpoint_config *config)
{
	if (config->cpu >= 0 && config->cpu != raw_smp_processor_id())
		return false;
	if (config->tgid && config->tgid != task_tgid_nr(current))
		return false;

	return strstarts(current->comm, config->comm);
}

static bool fm_syncpoint_may_sleep(void)
{
	return preemptible() && !rcu_preempt_depth() && task_is_running(current);
}

static void fm_syncpoint_hold(struct fm_syncpoint *sp)
{
	u64 end = ktime_get_mono_fast_ns() +
		  (u64)sp->config.timeout_ms * NSEC_PER_MSEC;
	bool may_sleep = fm_syncpoint_may_sleep();
	int phase = FM_SYNCPOINT_RELEASED;

	sp->state.tid = task_pid_nr(current);
	sp->state.cpu = raw_smp_processor_id();
	sp->state.slept = may_sleep;
	memcpy(sp->state.comm, current->comm, sizeof(sp->state.comm));
	atomic_set_release(&sp->phase, FM_SYNCPOINT_HELD);

	while (!READ_ONCE(sp->released)) {
		if (ktime_get_mono_fast_ns() > end) {
			phase = FM_SYNCPOINT_TIMED_OUT;
			break;
		}
		if (may_sleep)
			schedule_timeout_uninterruptible(1);
		else
			cpu_relax();
	}
	if (!may_sleep)
		touch_softlockup_watchdog();
	atomic_set_release(&sp->phase, phase);
}

static void fm_syncpoint_hit(struct fm_syncpoint *sp)
{
	if (atomic_read(&sp->phase) != FM_SYNCPOINT_ARMED ||
	    !fm_syncpoint_matches(&sp->config))
		return;
	/* Only one task sees -1, and that task is held. */
	if (atomic_dec_return(&sp->skip) == -1)
		fm_syncpoint_hold(sp);
}

static void fm_syncpoint_ftrace(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	fm_syncpoint_hit(container_of(ops, struct fm_syncpoint, ops));
}

static int fm_syncpoint_kprobe_pre(struct kprobe *kp, struct pt_regs *regs)
{
	fm_syncpoint_hit(container_of(kp, struct fm_syncpoint, kp));

	return 0;
}

static int fm_syncpoint_register_ftrace(struct fm_syncpoint *sp)
{
	char *symbol = sp->config.symbol;
	int err;

	sp->ops.func = fm_syncpoint_ftrace;
	err = ftrace_set_filter(&sp->ops, symbol, strlen(symbol), 1);
	if (!err)
		err = register_ftrace_function(&sp->ops);
	if (err)
		ftrace_free_filter(&sp->ops);

	return err;
}

static int fm_syncpoint_register_kprobe(struct fm_syncpoint *sp)
{
	sp->kp.pre_handler = fm_syncpoint_kprobe_pre;
	sp->kp.symbol_name = sp->config.symbol;
	sp->kp.offset = sp->config.offset;

	return register_kprobe(&sp->kp);
}

static int fm_syncpoint_arm(struct fm_syncpoint *sp, const void __user *from)
{
	struct fm_syncpoint_config *config = &sp->config;
	int err;

	if (sp->armed)
		return -EBUSY;
	if (copy_from_user(config, from, sizeof(*config)))
		return -EFAULT;
	if (strnlen(config->symbol, FM_SYNCPOINT_SYMBOL_LEN) == FM_SYNCPOINT_SYMBOL_LEN ||
	    strnlen(config->comm, FM_SYNCPOINT_COMM_LEN) == FM_SYNCPOINT_COMM_LEN ||
	    !*config->symbol || config->skip > INT_MAX ||
	    !config->timeout_ms || config->timeout_ms > FM_SYNCPOINT_MAX_MS)
		return -EINVAL;

	atomic_set(&sp->skip, config->skip);
	err = config->offset < 0 ? fm_syncpoint_register_ftrace(sp) :
				   fm_syncpoint_register_kprobe(sp);
	sp->armed = !err;

	return err;
}

/* The task continues within a tick; one that slept also has to get a CPU. */
static void fm_syncpoint_release(struct fm_syncpoint *sp)
{
	WRITE_ONCE(sp->released, true);
	while (atomic_read_acquire(&sp->phase) == FM_SYNCPOINT_HELD)
		fsleep(200);
}

static long fm_syncpoint_ioctl(struct file *file, unsigned int cmd,
			       unsigned long arg)
{
	struct fm_syncpoint *sp = file->private_data;
	struct fm_syncpoint_state state = {};
	long err;

	switch (cmd) {
	case FM_SYNCPOINT_ARM:
		mutex_lock(&sp->lock);
		err = fm_syncpoint_arm(sp, (void __user *)arg);
		mutex_unlock(&sp->lock);
		return err;
	case FM_SYNCPOINT_GET_STATE:
		state.phase = atomic_read_acquire(&sp->phase);
		if (state.phase != FM_SYNCPOINT_ARMED) {
			u32 phase = state.phase;

			state = sp->state;
			state.phase = phase;
		}
		return copy_to_user((void __user *)arg, &state, sizeof(state)) ?
		       -EFAULT : 0;
	case FM_SYNCPOINT_RELEASE:
		fm_syncpoint_release(sp);
		return 0;
	}

	return -ENOTTY;
}

static int fm_syncpoint_open(struct inode *inode, struct file *file)
{
	struct fm_syncpoint *sp = kzalloc(sizeof(*sp), GFP_KERNEL);

	if (!sp)
		return -ENOMEM;
	mutex_init(&sp->lock);
	file->private_data = sp;

	return 0;
}

static int fm_syncpoint_close(struct inode *inode, struct file *file)
{
	struct fm_syncpoint *sp = file->private_data;

	if (sp->armed) {
		fm_syncpoint_release(sp);
		/* Both branches also wait until no task runs a handler. */
		if (sp->config.offset >= 0) {
			unregister_kprobe(&sp->kp);
		} else {
			unregister_ftrace_function(&sp->ops);
			ftrace_free_filter(&sp->ops);
		}
	}
	kfree(sp);

	return 0;
}

static const struct file_operations fm_syncpoint_fops = {
	.owner		= THIS_MODULE,
	.open		= fm_syncpoint_open,
	.release	= fm_syncpoint_close,
	.unlocked_ioctl	= fm_syncpoint_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice fm_syncpoint_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "fm_syncpoint",
	.fops	= &fm_syncpoint_fops,
	.mode	= 0600,
};

module_misc_device(fm_syncpoint_device);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Hold a task at a kernel function, for tests of races");
