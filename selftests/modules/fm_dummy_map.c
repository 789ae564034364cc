// SPDX-License-Identifier: GPL-2.0-only
/* Dummy map type without netfilter behind it, for the tests of modular map types.
 *
 * The module registers operations for the flow map's type number, or for the one
 * in the parameter type. A map is an array of 64-bit values that the kernel never
 * writes to. Other parameters make the module one that the kernel has to refuse,
 * or one whose init fails after registration. Loading the module returns what
 * bpf_map_register_ops() returned.
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

static char *omit = "";
module_param(omit, charp, 0444);
MODULE_PARM_DESC(omit, "callback to leave NULL; or owner, ops (register NULL)");

static char *unpaired = "";
module_param(unpaired, charp, 0444);
MODULE_PARM_DESC(unpaired, "callback to set without its counterpart");

static char *paired = "";
module_param(paired, charp, 0444);
MODULE_PARM_DESC(paired, "pair of callbacks to set: for_each, mmap");

static bool fail_init;
module_param(fail_init, bool, 0444);
MODULE_PARM_DESC(fail_init, "fail init with ENODEV after registration");

static bool unregister_refused;
module_param(unregister_refused, bool, 0444);
MODULE_PARM_DESC(unregister_refused, "call bpf_map_unregister_ops() after a refused registration");

static uint init_delay_ms;
module_param(init_delay_ms, uint, 0444);
MODULE_PARM_DESC(init_delay_ms, "milliseconds that init sleeps after registration");

static uint free_delay_ms;
module_param(free_delay_ms, uint, 0644);
MODULE_PARM_DESC(free_delay_ms, "milliseconds that map_free sleeps");

static int alloc_error;
module_param(alloc_error, int, 0644);
MODULE_PARM_DESC(alloc_error, "negative errno that map_alloc fails with; 0: none");

static atomic_t maps = ATOMIC_INIT(0);

static int maps_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&maps));
}

static const struct kernel_param_ops maps_ops = { .get = maps_get };
module_param_cb(maps, &maps_ops, NULL, 0444);
MODULE_PARM_DESC(maps, "number of maps that are not freed yet");

struct fm_dummy_map {
	struct bpf_map map;
	u64 values[];
};

static struct fm_dummy_map *to_dummy_map(const struct bpf_map *map)
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
	struct fm_dummy_map *dm;

	if (alloc_error)
		return ERR_PTR(alloc_error);
	dm = kzalloc(struct_size(dm, values, attr->max_entries), GFP_USER);
	if (!dm)
		return ERR_PTR(-ENOMEM);
	bpf_map_init_from_attr(&dm->map, attr);
	atomic_inc(&maps);

	return &dm->map;
}

static void fm_dummy_map_free(struct bpf_map *map)
{
	if (free_delay_ms)
		msleep(free_delay_ms);
	kfree(to_dummy_map(map));
	atomic_dec(&maps);
}

static void *fm_dummy_map_lookup_elem(struct bpf_map *map, void *key)
{
	u32 index = *(u32 *)key;

	return index < map->max_entries ? &to_dummy_map(map)->values[index] : NULL;
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

#ifdef FM_HAS_MMAP_FAULT
static vm_fault_t fm_dummy_map_mmap_fault(struct bpf_map *map,
					  struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}
#endif

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

/* Set up the operations as the module parameters say. */
static int __init fm_dummy_map_apply_params(struct bpf_map_ops *ops)
{
#define OMIT(name) \
	else if (!strcmp(omit, #name)) ops->name = NULL

	if (!*omit || !strcmp(omit, "ops"))
		;
	OMIT(owner);
	OMIT(map_alloc);
	OMIT(map_free);
	OMIT(map_lookup_elem);
	OMIT(map_update_elem);
	OMIT(map_delete_elem);
	OMIT(map_get_next_key);
	OMIT(map_mem_usage);
	OMIT(map_alloc_check);
	OMIT(map_meta_equal);
	else
		return -ENOENT;

	if (!strcmp(unpaired, "map_for_each_callback"))
		ops->map_for_each_callback = fm_dummy_map_for_each;
	else if (!strcmp(unpaired, "map_set_for_each_callback_args"))
		ops->map_set_for_each_callback_args = fm_dummy_map_set_for_each;
#ifdef FM_HAS_MMAP_FAULT
	else if (!strcmp(unpaired, "map_mmap_fault"))
		ops->map_mmap_fault = fm_dummy_map_mmap_fault;
#endif
	else if (*unpaired)
		return -ENOENT;

	if (!strcmp(paired, "for_each")) {
		ops->map_for_each_callback = fm_dummy_map_for_each;
		ops->map_set_for_each_callback_args = fm_dummy_map_set_for_each;
	} else if (!strcmp(paired, "mmap")) {
		ops->map_mmap = fm_dummy_map_mmap;
#ifdef FM_HAS_MMAP_FAULT
		ops->map_mmap_fault = fm_dummy_map_mmap_fault;
#endif
	} else if (*paired) {
		return -ENOENT;
	}

	return 0;
}

static int __init fm_dummy_map_init(void)
{
	const struct bpf_map_ops *ops = &fm_dummy_map_ops;
	int err;

	err = fm_dummy_map_apply_params(&fm_dummy_map_ops);
	if (err)
		return err;
	if (!strcmp(omit, "ops"))
		ops = NULL;

	err = bpf_map_register_ops(type, ops);
	if (err) {
		if (unregister_refused)
			bpf_map_unregister_ops(type, ops);
		return err;
	}
	if (init_delay_ms)
		msleep(init_delay_ms);
	if (fail_init) {
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
MODULE_DESCRIPTION("Dummy map type for the tests of modular map types");
