// SPDX-License-Identifier: GPL-2.0-only
/* fm_dummy_map under a second name: the tests load two modules for one map type. */
#include "fm_dummy_map.c"
