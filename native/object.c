/* BPF objects through libbpf: open, set globals, load, hand out descriptors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "shim.h"

struct weft_object {
	struct bpf_object *bpf;
};

/* The end of what was said matters most: the verifier puts its complaint last. */
static char said[256 * 1024];
static size_t said_length;

static int listen_to_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[64 * 1024];
	int length;

	if (level == LIBBPF_DEBUG)
		return 0;
	length = vsnprintf(line, sizeof(line), format, args);
	if (length < 0)
		return 0;
	if ((size_t)length >= sizeof(line))
		length = sizeof(line) - 1;
	if (said_length + length > sizeof(said)) {
		size_t drop = said_length + length - sizeof(said);

		memmove(said, said + drop, said_length - drop);
		said_length -= drop;
	}
	memcpy(said + said_length, line, length);
	said_length += length;
	return 0;
}

int weft_object_log(char *out, uint32_t size)
{
	size_t length = said_length < size - 1 ? said_length : size - 1;

	memcpy(out, said + said_length - length, length);
	out[length] = 0;
	said_length = 0;
	return length;
}

int weft_object_open(const void *elf, uint32_t size, const char *name, const char *pin_dir, struct weft_object **out)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = name);
	struct weft_object *object;
	struct bpf_map *map;
	char path[512];
	int error;

	libbpf_set_print(listen_to_libbpf);
	object = calloc(1, sizeof(*object));
	if (!object)
		return -ENOMEM;
	object->bpf = bpf_object__open_mem(elf, size, &options);
	if (!object->bpf) {
		error = -errno;
		free(object);
		return error;
	}
	if (pin_dir) {
		bpf_object__for_each_map(map, object->bpf) {
			/* Globals belong to one load of one object. */
			/* scratch_…: what is left there from one packet to the next is of use to this object alone, if at all. */
			/* before_…: another version's, under its own name (weft_object_reuse). */
			if (bpf_map__is_internal(map) || !strncmp(bpf_map__name(map), "scratch_", 8) ||
			    !strncmp(bpf_map__name(map), "before_", 7))
				continue;
			if (snprintf(path, sizeof(path), "%s/%s", pin_dir, bpf_map__name(map)) >= (int)sizeof(path)) {
				weft_object_close(object);
				return -ENAMETOOLONG;
			}
			error = bpf_map__set_pin_path(map, path);
			if (error) {
				weft_object_close(object);
				return error;
			}
		}
	}
	*out = object;
	return 0;
}

int weft_object_set(struct weft_object *object, const char *global, const void *value, uint32_t size)
{
	const struct btf *btf = bpf_object__btf(object->bpf);
	const struct btf_var_secinfo *variable;
	const struct btf_type *section;
	struct bpf_map *map;
	uint8_t *data;
	size_t room;
	int id, i;

	map = bpf_object__find_map_by_name(object->bpf, ".rodata");
	if (!map || !btf)
		return -ENOENT;
	data = (uint8_t *)bpf_map__initial_value(map, &room);
	id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	if (!data || id < 0)
		return -ENOENT;
	section = btf__type_by_id(btf, id);
	variable = btf_var_secinfos(section);
	for (i = 0; i < btf_vlen(section); i++, variable++) {
		const struct btf_type *type = btf__type_by_id(btf, variable->type);

		if (strcmp(btf__name_by_offset(btf, type->name_off), global))
			continue;
		if (variable->size != size || variable->offset + size > room)
			return -EINVAL;
		memcpy(data + variable->offset, value, size);
		return 0;
	}
	return -ENOENT;
}

int weft_object_resize(struct weft_object *object, const char *name, uint32_t entries_max)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object->bpf, name);

	return map ? bpf_map__set_max_entries(map, entries_max) : -ENOENT;
}

int weft_object_reuse(struct weft_object *object, const char *name, int fd)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object->bpf, name);

	return map ? bpf_map__reuse_fd(map, fd) : -ENOENT;
}

int weft_object_btf(struct weft_object *object, void *out, uint32_t room)
{
	const struct btf *btf = bpf_object__btf(object->bpf);
	const void *data;
	uint32_t size;

	if (!btf)
		return -ENOENT;
	data = btf__raw_data(btf, &size);
	if (!data)
		return -ENOMEM;
	if (size <= room)
		memcpy(out, data, size);
	return size;
}

int weft_object_load(struct weft_object *object)
{
	return bpf_object__load(object->bpf);
}

static int duplicate(int fd)
{
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? -errno : fd;
}

int weft_object_program(struct weft_object *object, const char *name)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object->bpf, name);

	return program ? duplicate(bpf_program__fd(program)) : -ENOENT;
}

int weft_object_map(struct weft_object *object, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object->bpf, name);

	return map ? duplicate(bpf_map__fd(map)) : -ENOENT;
}

void weft_object_close(struct weft_object *object)
{
	if (!object)
		return;
	bpf_object__close(object->bpf);
	free(object);
}
