/* Maps as bytes: one entry, many at once, all. */
#define _GNU_SOURCE
#include <string.h>

#include <bpf/libbpf.h>

#include "bpf.h"
#include "shim.h"

/* src/kernel/kernel.test.ts holds the same numbers against koffi's. */
_Static_assert(sizeof(struct weft_map_info) == 40, "weft_map_info");

int weft_map_info(int fd, struct weft_map_info *out)
{
	struct bpf_map_info i = {};
	int error = bpf_info(fd, &i, sizeof(i));

	if (error)
		return error;
	out->id = i.id;
	out->type = i.type;
	out->key_size = i.key_size;
	out->value_size = i.value_size;
	out->entries_max = i.max_entries;
	out->flags = i.map_flags;
	memcpy(out->name, i.name, sizeof(out->name));
	return 0;
}

int weft_map_btf(int fd, uint32_t ids[2], void *out, uint32_t room)
{
	struct bpf_btf_info types = { .btf = pointer(out), .btf_size = room };
	struct bpf_map_info i = {};
	union bpf_attr a = {};
	int btf, error = bpf_info(fd, &i, sizeof(i));

	if (error)
		return error;
	if (!i.btf_id)
		return -ENOENT;
	ids[0] = i.btf_key_type_id;
	ids[1] = i.btf_value_type_id;
	a.btf_id = i.btf_id;
	btf = bpf(BPF_BTF_GET_FD_BY_ID, &a);
	if (btf < 0)
		return btf;
	error = bpf_info(btf, &types, sizeof(types));
	close(btf);
	return error ? error : (int)types.btf_size;
}

int weft_map_create(uint32_t type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t entries_max,
		    uint32_t flags)
{
	union bpf_attr a = {};

	a.map_type = type;
	a.key_size = key_size;
	a.value_size = value_size;
	a.max_entries = entries_max;
	a.map_flags = flags;
	strncpy(a.map_name, name, sizeof(a.map_name) - 1);
	return bpf(BPF_MAP_CREATE, &a);
}

static int element(enum bpf_cmd command, int fd, const void *key, const void *value, uint64_t flags)
{
	union bpf_attr a = {};

	a.map_fd = fd;
	a.key = pointer(key);
	a.value = pointer(value);
	a.flags = flags;
	return bpf(command, &a);
}

int weft_map_lookup(int fd, const void *key, void *value)
{
	return element(BPF_MAP_LOOKUP_ELEM, fd, key, value, 0);
}

int weft_map_update(int fd, const void *key, const void *value, uint64_t flags)
{
	return element(BPF_MAP_UPDATE_ELEM, fd, key, value, flags);
}

int weft_map_delete(int fd, const void *key)
{
	return element(BPF_MAP_DELETE_ELEM, fd, key, NULL, 0);
}

static int batch(enum bpf_cmd command, int fd, const void *keys, const void *values, uint32_t count)
{
	union bpf_attr a = {};
	int error;

	a.batch.map_fd = fd;
	a.batch.keys = pointer(keys);
	a.batch.values = pointer(values);
	a.batch.count = count;
	error = bpf(command, &a);
	/* E2BIG: the map is full, count says how far it came. ENOENT: a key was not there. */
	if (error && error != -E2BIG && error != -ENOENT)
		return error;
	return a.batch.count;
}

int weft_map_update_batch(int fd, const void *keys, const void *values, uint32_t count)
{
	return batch(BPF_MAP_UPDATE_BATCH, fd, keys, values, count);
}

int weft_map_delete_batch(int fd, const void *keys, uint32_t count)
{
	return batch(BPF_MAP_DELETE_BATCH, fd, keys, NULL, count);
}

/*
 * A hash, place by place. Asking for the key after another begins again from the front where that one has just been removed,
 * as happens all the time in maps that packets write: the same entries would come twice, and there would be no end of them.
 */
static int dump_hash(int fd, void *keys, void *values, uint32_t key_size, uint32_t value_size, uint32_t room)
{
	uint32_t count = 0, place = 0;

	for (;;) {
		union bpf_attr a = {};
		int error;

		if (count == room)
			return -ENOSPC;
		a.batch.map_fd = fd;
		a.batch.in_batch = count || place ? pointer(&place) : 0;
		a.batch.out_batch = pointer(&place);
		a.batch.keys = pointer((uint8_t *)keys + (size_t)count * key_size);
		a.batch.values = pointer((uint8_t *)values + (size_t)count * value_size);
		a.batch.count = room - count;
		error = bpf(BPF_MAP_LOOKUP_BATCH, &a);
		/* ENOENT: this was the last. ENOSPC: the next place has more than there is room for. */
		if (error && error != -ENOENT)
			return error;
		count += a.batch.count;
		if (error)
			return count;
	}
}

static int is_hash(uint32_t type)
{
	return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH || type == BPF_MAP_TYPE_PERCPU_HASH ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

int weft_map_dump(int fd, uint32_t key_size, uint32_t value_size, void *keys, void *values, uint32_t room)
{
	uint8_t position[256], *key = keys, *value = values;
	struct bpf_map_info map = {};
	union bpf_attr a = {};
	uint32_t count = 0;
	int error;

	error = bpf_info(fd, &map, sizeof(map));
	if (error)
		return error;
	if (is_hash(map.type))
		return dump_hash(fd, keys, values, key_size, value_size, room);
	if (key_size > sizeof(position))
		return -EINVAL;
	for (;;) {
		memset(&a, 0, sizeof(a));
		a.map_fd = fd;
		a.key = count == 0 && key == keys ? 0 : pointer(position);
		a.next_key = pointer(position);
		error = bpf(BPF_MAP_GET_NEXT_KEY, &a);
		if (error == -ENOENT)
			return count;
		if (error)
			return error;
		if (count == room)
			return -ENOSPC;
		memcpy(key, position, key_size);
		key += key_size;
		error = weft_map_lookup(fd, position, value);
		if (error == -ENOENT) { /* removed since: its place is used again */
			key -= key_size;
			if (count == 0)
				return -EAGAIN;
			continue;
		}
		if (error)
			return error;
		value += value_size;
		count++;
	}
}

int weft_map_count(int fd, uint32_t key_size, uint32_t limit)
{
	uint8_t position[256];
	union bpf_attr a = {};
	uint32_t count;

	if (key_size > sizeof(position))
		return -EINVAL;
	/* A hash that changes meanwhile may begin again: the limit ends that. */
	for (count = 0; count < limit; count++) {
		int error;

		memset(&a, 0, sizeof(a));
		a.map_fd = fd;
		a.key = count == 0 ? 0 : pointer(position);
		a.next_key = pointer(position);
		error = bpf(BPF_MAP_GET_NEXT_KEY, &a);
		if (error == -ENOENT)
			break;
		if (error)
			return error;
	}
	return count;
}

int weft_possible_cpus(void)
{
	return libbpf_num_possible_cpus();
}
