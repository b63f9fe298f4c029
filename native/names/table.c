/* Rows of a table of DNS answers: put, removed, replaced, counted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "names.h"

static int grow(struct weft_names *names)
{
	uint32_t wider = names->bucket_count * 2;
	struct row **buckets = calloc(wider, sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;
	for (uint32_t i = 0; i < names->bucket_count; i++) {
		struct row *row = names->buckets[i], *next;

		for (; row; row = next) {
			next = row->next;
			row->next = buckets[row->hash & (wider - 1)];
			buckets[row->hash & (wider - 1)] = row;
		}
	}
	free(names->buckets);
	names->buckets = buckets;
	names->bucket_count = wider;
	return 0;
}

struct weft_names *weft_names_new(void)
{
	struct weft_names *names = calloc(1, sizeof(*names));
	/* A writer waits for one batch at most, readers do not starve it. */
	pthread_rwlockattr_t attributes;

	if (!names)
		return NULL;
	names->bucket_count = 1024;
	names->buckets = calloc(names->bucket_count, sizeof(*names->buckets));
	names->asks = calloc(asks_max, sizeof(*names->asks));
	names->counts = calloc(counters, sizeof(*names->counts));
	names->bell[0] = names->bell[1] = -1;
	if (!names->buckets || !names->asks || !names->counts || getrandom(&names->seed, sizeof(names->seed), 0) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, names->bell)) {
		free(names->buckets);
		free(names->asks);
		free(names->counts);
		free(names);
		return NULL;
	}
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&names->lock, &attributes);
	pthread_mutex_init(&names->queue_lock, NULL);
	return names;
}

/* op u8 (1 put, 2 remove), rcode u8, flags u8, pad u8, type, name size, answers, authorities, additionals, body size u16 */
enum { change_header = 16 };

static uint16_t get16le(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

static int put_row(struct weft_names *names, const uint8_t *change, uint16_t type, uint16_t name_size,
		   uint16_t body_size)
{
	const uint8_t *name = change + change_header;
	struct row *row = malloc(sizeof(*row) + name_size + body_size), **at;

	if (!row)
		return -ENOMEM;
	*row = (struct row){
		.hash = hash_of(names->seed, name, name_size, type),
		.type = type,
		.name_size = name_size,
		.body_size = body_size,
		.answers = get16le(change + 8),
		.authorities = get16le(change + 10),
		.additionals = get16le(change + 12),
		.rcode = change[1],
		.flags = change[2],
	};
	memcpy(row->bytes, name, name_size + body_size);
	at = place_of(names, name, name_size, type);
	if (*at) {
		row->next = (*at)->next;
		free(*at);
	} else {
		names->row_count++;
	}
	*at = row;
	return names->row_count > names->bucket_count ? grow(names) : 0;
}

static int change_rows(struct weft_names *names, const uint8_t *changes, uint32_t size)
{
	int done = 0;

	while (size > 0) {
		uint16_t type, name_size, body_size;
		int error = 0;

		if (size < change_header)
			return -EINVAL;
		type = get16le(changes + 4);
		name_size = get16le(changes + 6);
		body_size = get16le(changes + 14);
		if (name_size < 1 || name_size > name_max || (uint32_t)change_header + name_size + body_size > size)
			return -EINVAL;
		if (changes[0] == 1) {
			error = put_row(names, changes, type, name_size, body_size);
		} else if (changes[0] == 2) {
			struct row **at = place_of(names, changes + change_header, name_size, type), *row = *at;

			if (row) {
				*at = row->next;
				names->row_count--;
				free(row);
			}
		} else {
			error = -EINVAL;
		}
		if (error)
			return error;
		changes += change_header + name_size + body_size;
		size -= change_header + name_size + body_size;
		done++;
	}
	return done;
}

int weft_names_change(struct weft_names *names, const void *changes, uint32_t size)
{
	int result;

	pthread_rwlock_wrlock(&names->lock);
	result = change_rows(names, changes, size);
	pthread_rwlock_unlock(&names->lock);
	return result;
}

static void free_rows(struct row **buckets, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct row *row = buckets[i], *next;

		for (; row; row = next) {
			next = row->next;
			free(row);
		}
	}
	free(buckets);
}

int weft_names_replace(struct weft_names *names, const void *changes, uint32_t size)
{
	struct weft_names fresh = { .seed = names->seed, .bucket_count = 1024 };
	struct row **buckets;
	uint32_t count;
	int result;

	fresh.buckets = calloc(fresh.bucket_count, sizeof(*fresh.buckets));
	if (!fresh.buckets)
		return -ENOMEM;
	/* Made beside the old one, so that nobody waits for it. */
	result = change_rows(&fresh, changes, size);
	if (result < 0) {
		free_rows(fresh.buckets, fresh.bucket_count);
		return result;
	}
	pthread_rwlock_wrlock(&names->lock);
	buckets = names->buckets;
	count = names->bucket_count;
	names->buckets = fresh.buckets;
	names->bucket_count = fresh.bucket_count;
	names->row_count = fresh.row_count;
	pthread_rwlock_unlock(&names->lock);
	free_rows(buckets, count);
	return result;
}

static void put16le(uint8_t *p, uint32_t value)
{
	p[0] = value;
	p[1] = value >> 8;
}

static uint8_t *write_row(uint8_t *out, const struct row *row)
{
	memset(out, 0, change_header);
	out[0] = 1;
	out[1] = row->rcode;
	out[2] = row->flags;
	put16le(out + 4, row->type);
	put16le(out + 6, row->name_size);
	put16le(out + 8, row->answers);
	put16le(out + 10, row->authorities);
	put16le(out + 12, row->additionals);
	put16le(out + 14, row->body_size);
	memcpy(out + change_header, row->bytes, row->name_size + row->body_size);
	return out + change_header + row->name_size + row->body_size;
}

int weft_names_dump(struct weft_names *names, void *out, uint32_t room)
{
	uint64_t size = 0;
	uint8_t *to = out;

	pthread_rwlock_rdlock(&names->lock);
	for (uint32_t i = 0; i < names->bucket_count; i++)
		for (const struct row *row = names->buckets[i]; row; row = row->next)
			size += change_header + row->name_size + row->body_size;
	for (uint32_t i = 0; size <= room && i < names->bucket_count; i++)
		for (const struct row *row = names->buckets[i]; row; row = row->next)
			to = write_row(to, row);
	pthread_rwlock_unlock(&names->lock);
	return size > INT32_MAX ? -EFBIG : (int)size;
}

void weft_names_own(struct weft_names *names, int has_owner)
{
	__atomic_store_n(&names->has_owner, has_owner, __ATOMIC_RELEASE);
}

int weft_names_share(struct weft_names *names, int fd)
{
	uint64_t *shared;

	if (ftruncate(fd, counters * sizeof(*shared)))
		return -errno;
	shared = mmap(NULL, counters * sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return -errno;
	free(names->counts);
	names->counts = shared;
	return 0;
}

int weft_names_counts(struct weft_names *names, uint64_t *out, uint32_t room)
{
	if (room < counters + 1)
		return -EINVAL;
	for (int i = 0; i < counters; i++)
		out[i] = __atomic_load_n(&names->counts[i], __ATOMIC_RELAXED);
	pthread_rwlock_rdlock(&names->lock);
	out[counters] = names->row_count;
	pthread_rwlock_unlock(&names->lock);
	return counters + 1;
}

void weft_names_free(struct weft_names *names)
{
	__atomic_store_n(&names->stopping, 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < names->server_count; i++) {
		struct server *server = names->servers[i];

		/* Says ENOTCONN, and wakes who waits on the socket all the same. */
		shutdown(server->fd, SHUT_RDWR);
		pthread_join(server->thread, NULL);
		close(server->fd);
		free(server);
	}
	free_rows(names->buckets, names->bucket_count);
	close(names->bell[0]);
	close(names->bell[1]);
	pthread_rwlock_destroy(&names->lock);
	pthread_mutex_destroy(&names->queue_lock);
	free(names->asks);
	free(names->counts);
	free(names);
}
