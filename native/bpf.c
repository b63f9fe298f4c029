/* bpf(2) by itself: links that libbpf 1.1 does not know (tcx), pins, maps, test runs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <bpf/libbpf.h>

#include "shim.h"

/* src/kernel/kernel.test.ts holds the same numbers against koffi's. */
_Static_assert(sizeof(struct weft_program_info) == 32, "weft_program_info");
_Static_assert(sizeof(struct weft_link_info) == 32, "weft_link_info");
_Static_assert(sizeof(struct weft_map_info) == 40, "weft_map_info");
_Static_assert(sizeof(struct weft_test_run) == 56, "weft_test_run");

static int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	int result = syscall(__NR_bpf, command, attributes, sizeof(*attributes));

	return result < 0 ? -errno : result;
}

static uint64_t pointer(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

int weft_pin(int fd, const char *path)
{
	union bpf_attr a = {};

	a.bpf_fd = fd;
	a.pathname = pointer(path);
	return bpf(BPF_OBJ_PIN, &a);
}

int weft_open_pin(const char *path)
{
	union bpf_attr a = {};

	a.pathname = pointer(path);
	return bpf(BPF_OBJ_GET, &a);
}

static int info(int fd, void *out, uint32_t size)
{
	union bpf_attr a = {};

	a.info.bpf_fd = fd;
	a.info.info = pointer(out);
	a.info.info_len = size;
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
}

int weft_program_info(int fd, struct weft_program_info *out)
{
	struct bpf_prog_info i = {};
	int error = info(fd, &i, sizeof(i));

	if (error)
		return error;
	out->id = i.id;
	out->type = i.type;
	memcpy(out->tag, i.tag, sizeof(out->tag));
	out->run_count = i.run_cnt;
	out->run_nanoseconds = i.run_time_ns;
	return 0;
}

/* The part of bpf_link_info that the headers of Debian 12 (Linux 6.1) do not have. */
struct link_info {
	uint32_t type;
	uint32_t id;
	uint32_t prog_id;
	uint32_t pad;
	union {
		struct {
			uint64_t cgroup_id;
			uint32_t attach_type;
		} cgroup;
		struct {
			uint32_t ifindex;
			uint32_t attach_type;
		} tcx;
		uint8_t room[128];
	};
};

enum { link_type_cgroup = 3, link_type_xdp = 6, link_type_tcx = 11 };

int weft_link_info(int fd, struct weft_link_info *out)
{
	struct link_info i = {};
	int error = info(fd, &i, sizeof(i));

	if (error)
		return error;
	memset(out, 0, sizeof(*out));
	out->id = i.id;
	out->type = i.type;
	out->program_id = i.prog_id;
	if (i.type == link_type_tcx) {
		out->ifindex = i.tcx.ifindex;
		out->attach_type = i.tcx.attach_type;
	} else if (i.type == link_type_xdp) {
		out->ifindex = i.tcx.ifindex; /* both begin with it */
	} else if (i.type == link_type_cgroup) {
		out->attach_type = i.cgroup.attach_type;
		out->cgroup_id = i.cgroup.cgroup_id;
	}
	return 0;
}

static int link_create(int program, uint32_t target, uint32_t attach_type)
{
	union bpf_attr a = {};

	a.link_create.prog_fd = program;
	a.link_create.target_ifindex = target; /* shares its place with target_fd */
	a.link_create.attach_type = attach_type & 0xffff;
	a.link_create.flags = attach_type >> 16;
	return bpf(BPF_LINK_CREATE, &a);
}

int weft_attach_tcx(int netns, uint32_t ifindex, int program, uint32_t attach_type)
{
	int home = -1, error, link;

	/* The kernel looks the index up where the caller is: elsewhere it may be silently another device. */
	if (netns >= 0) {
		home = weft_netns_open("/proc/thread-self/ns/net");
		if (home < 0)
			return home;
		error = weft_netns_enter(netns);
		if (error) {
			close(home);
			return error;
		}
	}
	link = link_create(program, ifindex, attach_type);
	if (home >= 0) {
		if (weft_netns_enter(home))
			abort(); /* nothing may run on in the wrong namespace */
		close(home);
	}
	return link;
}

int weft_attach_cgroup(int cgroup, int program, uint32_t attach_type)
{
	return link_create(program, cgroup, attach_type);
}

int weft_link_update(int link, int program)
{
	union bpf_attr a = {};

	a.link_update.link_fd = link;
	a.link_update.new_prog_fd = program;
	return bpf(BPF_LINK_UPDATE, &a);
}

int weft_link_detach(int link)
{
	union bpf_attr a = {};

	a.link_detach.link_fd = link;
	return bpf(BPF_LINK_DETACH, &a);
}

int weft_test_run(struct weft_test_run *run)
{
	union bpf_attr a = {};
	int error;

	a.test.prog_fd = run->program;
	a.test.repeat = run->repeat;
	a.test.data_in = pointer(run->data_in);
	a.test.data_size_in = run->data_in_size;
	a.test.data_out = pointer(run->data_out);
	a.test.data_size_out = run->data_out_size;
	a.test.ctx_in = pointer(run->context);
	a.test.ctx_size_in = run->context_size;
	a.test.ctx_out = pointer(run->context);
	a.test.ctx_size_out = run->context_size;
	error = bpf(BPF_PROG_TEST_RUN, &a);
	run->data_out_size = a.test.data_size_out;
	run->verdict = a.test.retval;
	run->nanoseconds = a.test.duration;
	return error;
}

/* The coarse clock is read at ticks: its resolution is theirs. */
int weft_tick_nanoseconds(void)
{
	struct timespec t;

	if (clock_getres(CLOCK_MONOTONIC_COARSE, &t))
		return -errno;
	return t.tv_nsec;
}

int weft_run_syscall(int program, void *context, uint32_t size)
{
	union bpf_attr a = {};
	int error;

	a.test.prog_fd = program;
	a.test.ctx_in = pointer(context);
	a.test.ctx_size_in = size;
	error = bpf(BPF_PROG_TEST_RUN, &a);
	return error < 0 ? error : (int)a.test.retval;
}

int weft_run_live(int program, const void *frame, uint32_t size, uint32_t repeat)
{
	uint32_t left = repeat, step;
	union bpf_attr a;
	int error;

	/* A signal ends a run early, and how far it came nobody says: in small steps that matters little. */
	for (; left; left -= step) {
		step = left < 65536 ? left : 65536;
		memset(&a, 0, sizeof(a));
		a.test.prog_fd = program;
		a.test.data_in = pointer(frame);
		a.test.data_size_in = size;
		a.test.repeat = step;
		a.test.flags = 1 << 1; /* BPF_F_TEST_XDP_LIVE_FRAMES */
		a.test.batch_size = 64;
		error = bpf(BPF_PROG_TEST_RUN, &a);
		if (error && error != -EINTR)
			return error;
	}
	return 0;
}

int weft_map_info(int fd, struct weft_map_info *out)
{
	struct bpf_map_info i = {};
	int error = info(fd, &i, sizeof(i));

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

int weft_map_dump(int fd, uint32_t key_size, uint32_t value_size, void *keys, void *values, uint32_t room)
{
	uint8_t position[256], *key = keys, *value = values;
	union bpf_attr a = {};
	uint32_t count = 0;
	int error;

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

/* A record's header (linux/bpf.h): its length, with the two high bits saying "still being written" and "take no notice". */
#define RING_BUSY (1U << 31)
#define RING_DISCARD (1U << 30)
#define RING_HEADER 8

struct weft_ring {
	unsigned long *consumer; /* a page: how far we have read; the kernel looks at it before it overwrites */
	unsigned long *producer; /* a page: how far there is something; then the data, twice, so that no record is cut */
	size_t size;
};

int weft_ring_open(int fd, uint32_t size, weft_ring **out)
{
	size_t page = sysconf(_SC_PAGESIZE);
	weft_ring *ring = malloc(sizeof(*ring));
	int error;

	if (!ring)
		return -ENOMEM;
	ring->size = size;
	ring->consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring->consumer == MAP_FAILED)
		goto refused;
	ring->producer = mmap(NULL, page + 2 * ring->size, PROT_READ, MAP_SHARED, fd, page);
	if (ring->producer == MAP_FAILED) {
		error = -errno;
		munmap(ring->consumer, page);
		free(ring);
		return error;
	}
	*out = ring;
	return 0;
refused:
	error = -errno;
	free(ring);
	return error;
}

int weft_ring_drain(weft_ring *ring, uint32_t record_size, void *records, uint32_t room)
{
	const char *data = (const char *)ring->producer + sysconf(_SC_PAGESIZE);
	unsigned long produced = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	unsigned long consumed = *ring->consumer;
	uint32_t count = 0;

	while (consumed < produced && count < room) {
		const char *record = data + (consumed & (ring->size - 1));
		uint32_t length = __atomic_load_n((const uint32_t *)record, __ATOMIC_ACQUIRE);

		if (length & RING_BUSY)
			break;
		if (!(length & RING_DISCARD)) {
			if ((length & ~RING_DISCARD) != record_size)
				return -EBADMSG;
			memcpy((char *)records + (size_t)count * record_size, record + RING_HEADER, record_size);
			count++;
		}
		consumed += ((length & ~RING_DISCARD) + RING_HEADER + 7) & ~7UL;
	}
	__atomic_store_n(ring->consumer, consumed, __ATOMIC_RELEASE);
	return count;
}

void weft_ring_close(weft_ring *ring)
{
	size_t page = sysconf(_SC_PAGESIZE);

	munmap(ring->consumer, page);
	munmap(ring->producer, page + 2 * ring->size);
	free(ring);
}

int weft_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

int weft_close(int fd)
{
	return close(fd) ? -errno : 0;
}
