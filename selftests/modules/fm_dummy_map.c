// SPDX-License-Identifier: GPL-2.0-only
/* A map type without netfilter behind it, for the tests of modular map types.
 *
 * It takes the slot that the flow map has (or the one that the parameter type
 * names) with an array of 64-bit values that the kernel never writes to. The
 * parameters make it a module that has to be refused, or one that fails after
 * it has registered. What registering returned is what loading it returns.
 */
#include <linux/bpf.h>
#include <linux/btf_ids.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

static uint type = BPF_MAP_TYPE_FLOWMAP;
module_param(type, uint, 0444);
MODULE_PARM_DESC(type, "map type to register as");

static char *lacks = "";
module_param(lacks, charp, 0444);
MODULE_PARM_DESC(lacks, "callback to leave out, or: owner, ops");

static char *alone = "";
module_param(alone, charp, 0444);
MODULE_PARM_DESC(alone, "callback to have without the one that belongs to it");

static char *pair = "";
module_param(pair, charp, 0444);
MODULE_PARM_DESC(pair, "callbacks to have that belong together: for_each, mmap");

static bool fail;
module_param(fail, bool, 0444);
MODULE_PARM_DESC(fail, "fail after registering, with ENODEV");

static bool untidy;
module_param(untidy, bool, 0444);
MODULE_PARM_DESC(untidy, "unregister also what was refused");

static uint linger;
module_param(linger, uint, 0444);
MODULE_PARM_DESC(linger, "milliseconds that init stays behind after registering");

static uint free_ms;
module_param(free_ms, uint, 0644);
MODULE_PARM_DESC(free_ms, "milliseconds that freeing a map takes");

static int alloc_error;
module_param(alloc_error, int, 0644);
MODULE_PARM_DESC(alloc_error, "error that creating a map fails with, as a negative number");

static atomic_t maps = ATOMIC_INIT(0);

static int maps_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&maps));
}

static const struct kernel_param_ops maps_ops = { .get = maps_get };
module_param_cb(maps, &maps_ops, NULL, 0444);
MODULE_PARM_DESC(maps, "maps that are not freed yet");

struct fm_dummy_map {
	struct bpf_map map;
	u64 values[];
};

static struct fm_dummy_map *to_testmap(const struct bpf_map *map)
{
	return container_of(map, struct fm_dummy_map, map);
}

static int fm_dummy_map_alloc_check(union bpf_attr *attr)
{
	if (attr->key_size != sizeof(u32) || attr->value_size != sizeof(u64) ||
	    !attr->max_entries || attr->max_entries > 1024)
		return -EINVAL;

	return 0;
}

static struct bpf_map *fm_dummy_map_alloc(union bpf_attr *attr)
{
	struct fm_dummy_map *tm;

	if (alloc_error)
		return ERR_PTR(alloc_error);
	tm = kzalloc(struct_size(tm, values, attr->max_entries), GFP_USER);
	if (!tm)
		return ERR_PTR(-ENOMEM);
	bpf_map_init_from_attr(&tm->map, attr);
	atomic_inc(&maps);

	return &tm->map;
}

static void fm_dummy_map_free(struct bpf_map *map)
{
	if (free_ms)
		msleep(free_ms);
	kfree(to_testmap(map));
	atomic_dec(&maps);
}

static void *fm_dummy_map_lookup_elem(struct bpf_map *map, void *key)
{
	u32 index = *(u32 *)key;

	return index < map->max_entries ? &to_testmap(map)->values[index] : NULL;
}

static long fm_dummy_map_update_elem(struct bpf_map *map, void *key, void *value,
				   u64 flags)
{
	return -EOPNOTSUPP;
}

static long fm_dummy_map_delete_elem(struct bpf_map *map, void *key)
{
	return -EOPNOTSUPP;
}

static int fm_dummy_map_get_next_key(struct bpf_map *map, void *key, void *next)
{
	u32 index = key ? *(u32 *)key + 1 : 0;

	if (index >= map->max_entries)
		return -ENOENT;
	*(u32 *)next = index;

	return 0;
}

static u64 fm_dummy_map_mem_usage(const struct bpf_map *map)
{
	return struct_size_t(struct fm_dummy_map, values, map->max_entries);
}

static int fm_dummy_map_set_for_each(struct bpf_verifier_env *env,
				   struct bpf_func_state *caller,
				   struct bpf_func_state *callee)
{
	return -EINVAL;
}

static long fm_dummy_map_for_each(struct bpf_map *map, bpf_callback_t callback,
				void *ctx, u64 flags)
{
	return -EINVAL;
}

static int fm_dummy_map_mmap(struct bpf_map *map, struct vm_area_struct *vma)
{
	return -EINVAL;
}

static vm_fault_t fm_dummy_map_mmap_fault(struct bpf_map *map,
					struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

BTF_ID_LIST_SINGLE(fm_dummy_map_btf_ids, struct, bpf_map)

static struct bpf_map_ops fm_dummy_map_ops = {
	.map_alloc_check	= fm_dummy_map_alloc_check,
	.map_alloc		= fm_dummy_map_alloc,
	.map_free		= fm_dummy_map_free,
	.map_lookup_elem	= fm_dummy_map_lookup_elem,
	.map_update_elem	= fm_dummy_map_update_elem,
	.map_delete_elem	= fm_dummy_map_delete_elem,
	.map_get_next_key	= fm_dummy_map_get_next_key,
	.map_mem_usage		= fm_dummy_map_mem_usage,
	.map_meta_equal		= bpf_map_meta_equal,
	.map_btf_id		= &fm_dummy_map_btf_ids[0],
	.owner			= THIS_MODULE,
};

/* Make the operations what the parameters say. */
static int __init fm_dummy_map_shape(struct bpf_map_ops *ops)
{
#define LEAVE_OUT(name) \
	else if (!strcmp(lacks, #name)) ops->name = NULL

	if (!*lacks || !strcmp(lacks, "ops"))
		;
	LEAVE_OUT(owner);
	LEAVE_OUT(map_alloc);
	LEAVE_OUT(map_free);
	LEAVE_OUT(map_lookup_elem);
	LEAVE_OUT(map_update_elem);
	LEAVE_OUT(map_delete_elem);
	LEAVE_OUT(map_get_next_key);
	LEAVE_OUT(map_mem_usage);
	LEAVE_OUT(map_alloc_check);
	LEAVE_OUT(map_meta_equal);
	else
		return -ENOENT;

	if (!strcmp(alone, "map_for_each_callback"))
		ops->map_for_each_callback = fm_dummy_map_for_each;
	else if (!strcmp(alone, "map_set_for_each_callback_args"))
		ops->map_set_for_each_callback_args = fm_dummy_map_set_for_each;
	else if (!strcmp(alone, "map_mmap_fault"))
		ops->map_mmap_fault = fm_dummy_map_mmap_fault;
	else if (*alone)
		return -ENOENT;

	if (!strcmp(pair, "for_each")) {
		ops->map_for_each_callback = fm_dummy_map_for_each;
		ops->map_set_for_each_callback_args = fm_dummy_map_set_for_each;
	} else if (!strcmp(pair, "mmap")) {
		ops->map_mmap = fm_dummy_map_mmap;
		ops->map_mmap_fault = fm_dummy_map_mmap_fault;
	} else if (*pair) {
		return -ENOENT;
	}

	return 0;
}

static int __init fm_dummy_map_init(void)
{
	const struct bpf_map_ops *ops = &fm_dummy_map_ops;
	int err;

	err = fm_dummy_map_shape(&fm_dummy_map_ops);
	if (err)
		return err;
	if (!strcmp(lacks, "ops"))
		ops = NULL;

	err = bpf_map_register_ops(type, ops);
	if (err) {
		if (untidy)
			bpf_map_unregister_ops(type, ops);
		return err;
	}
	if (linger)
		msleep(linger);
	if (fail) {
		bpf_map_unregister_ops(type, ops);
		return -ENODEV;
	}

	return 0;
}

static void __exit fm_dummy_map_exit(void)
{
	bpf_map_unregister_ops(type, &fm_dummy_map_ops);
}

module_init(fm_dummy_map_init);
module_exit(fm_dummy_map_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Map type for the tests of modular map types");
