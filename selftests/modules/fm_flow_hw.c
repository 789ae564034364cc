// SPDX-License-Identifier: GPL-2.0-only
/* Hardware for flow tables: takes every flow of a table with the offload flag.
 *
 * It serves devices without ndo_setup_tc, such as veth, as an indirect driver
 * does. No packet is taken from the stack: only the state of the flow, its
 * IPS_HW_OFFLOAD bit and the rules that netfilter adds, renews and deletes are
 * real. The module's parameters count the rules.
 */
#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <net/flow_offload.h>

static atomic_t added = ATOMIC_INIT(0);
static atomic_t deleted = ATOMIC_INIT(0);

static int fm_flow_hw_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read((atomic_t *)kp->arg));
}

static const struct kernel_param_ops fm_flow_hw_ops = { .get = fm_flow_hw_get };
module_param_cb(added, &fm_flow_hw_ops, &added, 0444);
MODULE_PARM_DESC(added, "number of rules that were added or renewed, one for each direction");
module_param_cb(deleted, &fm_flow_hw_ops, &deleted, 0444);
MODULE_PARM_DESC(deleted, "number of rules that were deleted");

static int fm_flow_hw_rule(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	const struct flow_cls_offload *rule = type_data;

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;

	switch (rule->command) {
	case FLOW_CLS_REPLACE:
		atomic_inc(&added);
		return 0;
	case FLOW_CLS_DESTROY:
		atomic_inc(&deleted);
		return 0;
	case FLOW_CLS_STATS:
		/* no packets */
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* Nothing is allocated for a block; flow_indr_dev_unregister() knows ours by it. */
static void fm_flow_hw_release(void *cb_priv)
{
}

static int fm_flow_hw_setup(struct net_device *dev, struct Qdisc *sch, void *priv,
			    enum tc_setup_type type, void *type_data, void *data,
			    void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_offload *bo = type_data;
	struct flow_block_cb *block_cb;

	if (type != TC_SETUP_FT)
		return -EOPNOTSUPP;

	if (bo->command == FLOW_BLOCK_UNBIND) {
		block_cb = flow_block_cb_lookup(bo->block, fm_flow_hw_rule, dev);
		if (!block_cb)
			return -ENOENT;
		flow_indr_block_cb_remove(block_cb, bo);
		return 0;
	}

	block_cb = flow_indr_block_cb_alloc(fm_flow_hw_rule, dev, dev, fm_flow_hw_release,
					    bo, dev, sch, data, priv, cleanup);
	if (IS_ERR(block_cb))
		return PTR_ERR(block_cb);
	flow_block_cb_add(block_cb, bo);

	return 0;
}

static int __init fm_flow_hw_init(void)
{
	return flow_indr_dev_register(fm_flow_hw_setup, NULL);
}

static void __exit fm_flow_hw_exit(void)
{
	flow_indr_dev_unregister(fm_flow_hw_setup, NULL, fm_flow_hw_release);
}

module_init(fm_flow_hw_init);
module_exit(fm_flow_hw_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Hardware offload of flow tables that takes every flow, for tests");
