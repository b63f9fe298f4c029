/*
 * What Weft needs of Linux that Node has no words for. Flat: numbers, byte buffers and paths in, a number out.
 * Every function returns 0 or a descriptor or a count, or -errno. No policy lives here.
 * Who owns which pointer: native/README.md.
 */
#ifndef WEFT_SHIM_H
#define WEFT_SHIM_H

#include <stdint.h>

#define WEFT_API __attribute__((visibility("default")))

/* ---- BPF objects (libbpf) ---- */

struct weft_object;

/* Parses an ELF object. Maps are pinned below pin_dir under their own names, and taken from there where they exist. */
WEFT_API int weft_object_open(const void *elf, uint32_t size, const char *name, const char *pin_dir,
			      struct weft_object **out);
/* Sets a `const volatile` global before load. -ENOENT: no such global. -EINVAL: it has another size. */
WEFT_API int weft_object_set(struct weft_object *object, const char *global, const void *value, uint32_t size);
/* At most this many entries in a map of the object, before load. */
WEFT_API int weft_object_resize(struct weft_object *object, const char *map, uint32_t entries_max);
/* A map that is there already, whatever its name and layout, in place of one of the object's, before load. */
WEFT_API int weft_object_reuse(struct weft_object *object, const char *map, int fd);
/* The object's types (BTF). Returns their size; more than room: nothing was written. */
WEFT_API int weft_object_btf(struct weft_object *object, void *out, uint32_t room);
WEFT_API int weft_object_load(struct weft_object *object);
/* A new descriptor, the caller's to close. */
WEFT_API int weft_object_program(struct weft_object *object, const char *name);
WEFT_API int weft_object_map(struct weft_object *object, const char *name);
WEFT_API void weft_object_close(struct weft_object *object);
/* What libbpf and the verifier said since the last call, NUL-terminated, cut at the front to fit. Returns its length. */
WEFT_API int weft_object_log(char *out, uint32_t size);

/* ---- pins, programs, links (raw bpf(2)) ---- */

WEFT_API int weft_pin(int fd, const char *path);
WEFT_API int weft_open_pin(const char *path);

struct weft_program_info {
	uint32_t id;
	uint32_t type;
	uint8_t tag[8];
	uint64_t run_count;
	uint64_t run_nanoseconds;
};
WEFT_API int weft_program_info(int fd, struct weft_program_info *out);
/* The maps that a program uses, by number, at most room of them. Returns how many there are. */
WEFT_API int weft_program_maps(int fd, uint32_t *ids, uint32_t room);
/* Its name, 16 bytes with the NUL. */
WEFT_API int weft_program_name(int fd, char *out);
/* Of a program by its number: a new descriptor, the caller's to close. */
WEFT_API int weft_program_open(uint32_t id);

struct weft_link_info {
	uint32_t id;
	uint32_t type;
	uint32_t program_id;
	/* tcx: 0 once the device has gone. */
	uint32_t ifindex;
	uint32_t attach_type;
	/* cgroup links: the inode of its directory; 0 once it has gone. */
	uint64_t cgroup_id;
};
WEFT_API int weft_link_info(int fd, struct weft_link_info *out);

/*
 * A program of any kind that is of a device: tcx, or XDP with its XDP_FLAGS_ in the upper half of attach_type. ifindex is looked
 * up in netns (a descriptor), or in the caller's own namespace for -1. Returns the link.
 */
WEFT_API int weft_attach_device(int netns, uint32_t ifindex, int program, uint32_t attach_type);
/*
 * The programs of one hook of a device (tcx), in the order in which they run, and each one's link, 0 for one without. At most
 * room of them; returns how many there are.
 */
WEFT_API int weft_query_device(int netns, uint32_t ifindex, uint32_t attach_type, uint32_t *programs, uint32_t *links,
			       uint32_t room);
/* To what a descriptor is of: a cgroup, or a network namespace for sk_lookup. */
WEFT_API int weft_attach_to(int target, int program, uint32_t attach_type);
/* The program behind a link is exchanged without a packet in between. */
WEFT_API int weft_link_update(int link, int program);
WEFT_API int weft_link_detach(int link);

struct weft_test_run {
	int32_t program;
	uint32_t repeat;
	const void *data_in;
	uint32_t data_in_size;
	uint32_t data_out_size; /* in: room, out: used */
	void *data_out;
	void *context; /* in and out */
	uint32_t context_size;
	uint32_t verdict;	/* out */
	uint32_t nanoseconds;	/* out: mean of one run */
};
WEFT_API int weft_test_run(struct weft_test_run *run);
/* ns between two ticks of this kernel. */
WEFT_API int weft_tick_nanoseconds(void);
/*
 * An XDP program on frames that really go where it says (BPF_F_TEST_XDP_LIVE_FRAMES): `repeat` of them, in batches of 64. In the
 * namespace of the caller.
 */
WEFT_API int weft_run_live(int program, const void *frame, uint32_t size, uint32_t repeat);
/* A SEC("syscall") program, once; its context is read and written. */
WEFT_API int weft_run_syscall(int program, void *context, uint32_t size);

/* ---- maps (raw bpf(2)) ---- */

struct weft_map_info {
	uint32_t id;
	uint32_t type;
	uint32_t key_size;
	uint32_t value_size;
	uint32_t entries_max;
	uint32_t flags;
	char name[16];
};
WEFT_API int weft_map_info(int fd, struct weft_map_info *out);
/* The types (BTF) that a map was made with; ids: of its key and its value. Returns their size, -ENOENT where there are none. */
WEFT_API int weft_map_btf(int fd, uint32_t ids[2], void *out, uint32_t room);
WEFT_API int weft_map_create(uint32_t type, const char *name, uint32_t key_size, uint32_t value_size,
			     uint32_t entries_max, uint32_t flags);
WEFT_API int weft_map_lookup(int fd, const void *key, void *value);
WEFT_API int weft_map_update(int fd, const void *key, const void *value, uint64_t flags);
WEFT_API int weft_map_delete(int fd, const void *key);
/* Returns how many were done; fewer than count when the map was full. */
WEFT_API int weft_map_update_batch(int fd, const void *keys, const void *values, uint32_t count);
WEFT_API int weft_map_delete_batch(int fd, const void *keys, uint32_t count);
/* Copies up to room entries; returns how many there were (a hash that changes meanwhile may show an entry twice). */
WEFT_API int weft_map_dump(int fd, uint32_t key_size, uint32_t value_size, void *keys, void *values, uint32_t room);
/* How many entries there are, limit at most. About 0.2 us for each: for a thread of the pool. */
WEFT_API int weft_map_count(int fd, uint32_t key_size, uint32_t limit);
WEFT_API int weft_possible_cpus(void);

/* A BPF ring buffer of records that all have one size, mapped. `size` is the map's, in bytes. */
typedef struct weft_ring weft_ring;
WEFT_API int weft_ring_open(int fd, uint32_t size, weft_ring **out);
/*
 * Copies the records that are there, at most `room`, one after the other, and frees their place. Never waits. Returns how many,
 * or -EBADMSG where one has another size. One reader at a time.
 */
WEFT_API int weft_ring_drain(weft_ring *ring, uint32_t record_size, void *records, uint32_t room);
WEFT_API void weft_ring_close(weft_ring *ring);

/* ---- network namespaces: entered and left again before the function returns ---- */

/* A new namespace bound at path (a file that is made). The caller stays where it is. */
WEFT_API int weft_netns_create(const char *path);
WEFT_API int weft_netns_delete(const char *path);
WEFT_API int weft_netns_open(const char *path);
/* The calling thread moves. Only for a synchronous call that must happen inside and is followed by the way back. */
WEFT_API int weft_netns_enter(int netns);
/* Inode and device of the namespace behind a descriptor: what makes two of them the same. */
WEFT_API int weft_netns_id(int netns, uint64_t out[2]);

/* All take a namespace descriptor, or -1 for the caller's own. */
WEFT_API int weft_socket(int netns, int domain, int type, int protocol);
/* address: 4 or 16 bytes. type SOCK_STREAM also listens. Returns a non-blocking descriptor. */
WEFT_API int weft_listen(int netns, const void *address, uint32_t address_size, uint16_t port, int type, int backlog);
WEFT_API int weft_sysctl_write(int netns, const char *path, const char *value);
WEFT_API int weft_sysctl_read(int netns, const char *path, char *out, uint32_t size);
WEFT_API int weft_ifindex(int netns, const char *name);
/*
 * Ends the sockets of the namespace whose peer is one of the targets: 18 bytes each, an address (IPv4 mapped) and a port, network
 * order. protocol: IPPROTO_TCP or IPPROTO_UDP. Returns how many.
 */
WEFT_API int weft_destroy_sockets(int netns, int protocol, const void *targets, uint32_t count);
/* One whole Ethernet frame, out by a device of the namespace. */
WEFT_API int weft_send_frame(int netns, uint32_t ifindex, const void *frame, uint32_t size);
/* What BPF programs know the namespace by. */
WEFT_API int weft_netns_cookie(int netns, uint64_t out[1]);
/* Checksum, segmentation and receive offloads of a device, on or off (tests). */
WEFT_API int weft_offloads(int netns, const char *device, int on);

/* ---- probes: 0, or why not ---- */

WEFT_API int weft_probe_tcx(void);
/* A device kind of rtnetlink: `netkit`, `vxlan`. */
WEFT_API int weft_probe_device(const char *kind);
WEFT_API int weft_probe_map(uint32_t type);

/* ---- DNS answers (names/): a table, and threads that serve it ---- */

struct weft_names;

/* NULL where there is no memory. */
WEFT_API struct weft_names *weft_names_new(void);
/* Rows to put and to remove, all at once for whoever asks. Returns how many; -EINVAL: not understood from there on. */
WEFT_API int weft_names_change(struct weft_names *names, const void *changes, uint32_t size);
/* The same for a whole table: these rows and no others. */
WEFT_API int weft_names_replace(struct weft_names *names, const void *changes, uint32_t size);
/* All rows, as weft_names_replace takes them. Returns their size; more than room: nothing was written. */
WEFT_API int weft_names_dump(struct weft_names *names, void *out, uint32_t room);
/* Without an owner, what the table does not know is told SERVFAIL at once. weft_names_bell makes the caller the owner. */
WEFT_API void weft_names_own(struct weft_names *names, int has_owner);
/* Counters are kept in this file from now on; before any thread serves, and until the process ends. */
WEFT_API int weft_names_share(struct weft_names *names, int fd);
/*
 * The answer to a query, as a thread would give it. limit: of an answer over this transport; 0 for UDP, where the query
 * says it. Returns its size, 0 where the table does not know, -1 where there shall be no answer.
 */
WEFT_API int weft_names_answer(struct weft_names *names, const void *query, uint32_t size, uint32_t limit, void *out,
			       uint32_t room);
/* Starts a thread on a bound UDP socket, which it owns from then on. Returns the socket's number. */
WEFT_API int weft_names_serve(struct weft_names *names, int fd);
/* A descriptor, the caller's to close, that can be read when there is something to take. */
WEFT_API int weft_names_bell(struct weft_names *names);
/* A query that the table does not know: socket number, size of the address, the address, the query. 0: none waits. */
WEFT_API int weft_names_take(struct weft_names *names, void *out, uint32_t room);
WEFT_API int weft_names_send(struct weft_names *names, uint32_t socket, const void *address, uint32_t address_size,
			     const void *data, uint32_t size);
/* Counters in the order of src/kernel/names.ts, last the number of rows. Returns how many. */
WEFT_API int weft_names_counts(struct weft_names *names, uint64_t *out, uint32_t room);
/* Ends the threads, closes their sockets. */
WEFT_API void weft_names_free(struct weft_names *names);

/* A duplicate of a descriptor of another process (pidfd_getfd, Linux 5.6). */
WEFT_API int weft_take_fd(int pid, int fd);
/* A second descriptor of the same thing, the caller's to close. */
WEFT_API int weft_dup(int fd);
WEFT_API int weft_close(int fd);

#endif
