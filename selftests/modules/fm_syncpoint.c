// SPDX-License-Identifier: GPL-2.0-only
/* Stop points: hold one task at a kernel function until a test lets it go.
 *
 * Each open file of /dev/fm_syncpoint is one stop point, see fm_syncpoint.h. Closing it
 * lets the task go and takes the probe away, so that nothing is left of a test
 * that died.
 *
 * A handler of a kprobe runs with preemption disabled and can only spin, on a
 * CPU that the others then have to do without, and which no grace period gets
 * past. But a window in a task that may sleep is often one in which another has
 * to wait for a grace period. At the entry of a function the task is therefore
 * held by a callback of ftrace, which has no more than the function itself had:
 * registered without FTRACE_OPS_FL_RECURSION and FTRACE_OPS_FL_RCU, it is called
 * from a trampoline of its own, with preemption as the caller left it. It
 *
 * - sleeps where the function could;
 * - spins, but can be preempted, in an RCU read side section;
 * - spins where the function is atomic. The test then has to see to it that
 *   what it does meanwhile needs neither that CPU nor a grace period.
 *
 * A kprobe serves places within a function, and the entries of those that ftrace
 * does not know, such as what is in lib/. It is a breakpoint, which x86 treats
 * like an NMI: the task always spins, with interrupts off.
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

/* The soft lockup detector complains after 20 seconds, RCU after 21. */
#define FM_SYNCPOINT_MAX_MS	15000

struct fm_syncpoint {
	struct ftrace_ops	ops;
	struct kprobe		kp;
	struct fm_syncpoint_point	point;
	struct fm_syncpoint_state	state;
	/* enum fm_syncpoint_phase; what state has belongs to the one who came */
	atomic_t		phase;
	/* how many still pass */
	atomic_t		skip;
	bool			go;
	/* protects armed, against two that arm it at once */
	struct mutex		lock;
	bool			armed;
};

static bool fm_syncpoint_means(const struct fm_syncpoint_point *point)
{
	if (point->cpu >= 0 && point->cpu != raw_smp_processor_id())
		return false;
	if (point->tgid && point->tgid != task_tgid_nr(current))
		return false;

	return strstarts(current->comm, point->comm);
}

static bool fm_syncpoint_may_sleep(void)
{
	return preemptible() && !rcu_preempt_depth() && task_is_running(current);
}

static void fm_syncpoint_here(struct fm_syncpoint *stop)
{
	u64 end = ktime_get_mono_fast_ns() +
		  (u64)stop->point.timeout_ms * NSEC_PER_MSEC;
	bool may_sleep = fm_syncpoint_may_sleep();
	int phase = FM_SYNCPOINT_RELEASED;

	stop->state.tid = task_pid_nr(current);
	stop->state.cpu = raw_smp_processor_id();
	stop->state.slept = may_sleep;
	memcpy(stop->state.comm, current->comm, sizeof(stop->state.comm));
	atomic_set_release(&stop->phase, FM_SYNCPOINT_HELD);

	while (!READ_ONCE(stop->go)) {
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
	atomic_set_release(&stop->phase, phase);
}

static void fm_syncpoint_hit(struct fm_syncpoint *stop)
{
	if (atomic_read(&stop->phase) != FM_SYNCPOINT_ARMED ||
	    !fm_syncpoint_means(&stop->point))
		return;
	/* Below zero there is one only: the one to be held. */
	if (atomic_dec_return(&stop->skip) == -1)
		fm_syncpoint_here(stop);
}

static void fm_syncpoint_traced(unsigned long ip, unsigned long parent_ip,
			   struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	fm_syncpoint_hit(container_of(ops, struct fm_syncpoint, ops));
}

static int fm_syncpoint_probed(struct kprobe *kp, struct pt_regs *regs)
{
	fm_syncpoint_hit(container_of(kp, struct fm_syncpoint, kp));

	return 0;
}

static int fm_syncpoint_trace(struct fm_syncpoint *stop)
{
	char *symbol = stop->point.symbol;
	int err;

	stop->ops.func = fm_syncpoint_traced;
	err = ftrace_set_filter(&stop->ops, symbol, strlen(symbol), 1);
	if (!err)
		err = register_ftrace_function(&stop->ops);
	if (err)
		ftrace_free_filter(&stop->ops);

	return err;
}

static int fm_syncpoint_probe(struct fm_syncpoint *stop)
{
	stop->kp.pre_handler = fm_syncpoint_probed;
	stop->kp.symbol_name = stop->point.symbol;
	stop->kp.offset = stop->point.offset;

	return register_kprobe(&stop->kp);
}

static int fm_syncpoint_arm(struct fm_syncpoint *stop, const void __user *from)
{
	struct fm_syncpoint_point *point = &stop->point;
	int err;

	if (stop->armed)
		return -EBUSY;
	if (copy_from_user(point, from, sizeof(*point)))
		return -EFAULT;
	if (strnlen(point->symbol, FM_SYNCPOINT_SYMBOL) == FM_SYNCPOINT_SYMBOL ||
	    strnlen(point->comm, FM_SYNCPOINT_COMM) == FM_SYNCPOINT_COMM ||
	    !*point->symbol || point->skip > INT_MAX ||
	    !point->timeout_ms || point->timeout_ms > FM_SYNCPOINT_MAX_MS)
		return -EINVAL;

	atomic_set(&stop->skip, point->skip);
	err = point->offset < 0 ? fm_syncpoint_trace(stop) : fm_syncpoint_probe(stop);
	stop->armed = !err;

	return err;
}

/* Who is held leaves within a tick, or, if it slept, when it gets the CPU. */
static void fm_syncpoint_release(struct fm_syncpoint *stop)
{
	WRITE_ONCE(stop->go, true);
	while (atomic_read_acquire(&stop->phase) == FM_SYNCPOINT_HELD)
		fsleep(200);
}

static long fm_syncpoint_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	struct fm_syncpoint *stop = file->private_data;
	struct fm_syncpoint_state state = {};
	long err;

	switch (cmd) {
	case FM_SYNCPOINT_ARM:
		mutex_lock(&stop->lock);
		err = fm_syncpoint_arm(stop, (void __user *)arg);
		mutex_unlock(&stop->lock);
		return err;
	case FM_SYNCPOINT_LOOK:
		state.phase = atomic_read_acquire(&stop->phase);
		if (state.phase != FM_SYNCPOINT_ARMED) {
			u32 phase = state.phase;

			state = stop->state;
			state.phase = phase;
		}
		return copy_to_user((void __user *)arg, &state, sizeof(state)) ?
		       -EFAULT : 0;
	case FM_SYNCPOINT_RELEASE:
		fm_syncpoint_release(stop);
		return 0;
	}

	return -ENOTTY;
}

static int fm_syncpoint_open(struct inode *inode, struct file *file)
{
	struct fm_syncpoint *stop = kzalloc(sizeof(*stop), GFP_KERNEL);

	if (!stop)
		return -ENOMEM;
	mutex_init(&stop->lock);
	file->private_data = stop;

	return 0;
}

static int fm_syncpoint_close(struct inode *inode, struct file *file)
{
	struct fm_syncpoint *stop = file->private_data;

	if (stop->armed) {
		fm_syncpoint_release(stop);
		/* Both wait until nobody is in a handler any more. */
		if (stop->point.offset >= 0) {
			unregister_kprobe(&stop->kp);
		} else {
			unregister_ftrace_function(&stop->ops);
			ftrace_free_filter(&stop->ops);
		}
	}
	kfree(stop);

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
MODULE_DESCRIPTION("Hold a task at a kernel function, for the tests of races");
