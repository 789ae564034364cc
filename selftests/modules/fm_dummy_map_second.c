// SPDX-License-Identifier: GPL-2.0-only
/* The same once more: two modules that want one slot. */
#include "fm_dummy_map.c"
