/*
 * What table.c, answer.c and serve.c share.
 *
 * A table of DNS answers and the threads that serve it: src/kernel/names.ts. What the answers are is decided outside; here
 * a question is checked, looked up, and the stored answer sent with the question's own id, flags and spelling. What the
 * table does not answer is queued for the owner, who takes it, and sends when it knows.
 *
 * A row belongs to a name (wire form, lower case) and a type. Two types have a meaning of their own: `any_type` is for
 * every type that the name has no row for, `below` for every name that is not there below this one.
 */
#ifndef WEFT_NAMES_H
#define WEFT_NAMES_H

#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "../shim.h"

enum {
	header_size = 12,
	name_max = 255,
	label_max = 63,
	/* RFC 1035, and what DNS Flag Day 2020 found to pass everywhere unfragmented. */
	plain_limit = 512,
	edns_limit = 1232,
	opt_size = 11,
	query_max = 1280,
	answer_max = 4096,
	batch = 64,
	/* What waits for the owner; the rest is told SERVFAIL at once. */
	asks_max = 512,
	sockets_max = 4,
	any_type = 0,
	below = 0xffff,
	type_opt = 41,
	type_ixfr = 251,
	type_axfr = 252,
	type_all = 255,
	class_in = 1,
	formerr = 1,
	servfail = 2,
	nxdomain = 3,
	notimp = 4,
	refused = 5,
	badvers = 16,
	flag_rotate = 1,
	flag_ask = 2,
};

/* Order as in src/kernel/names.ts. */
enum counter {
	count_queries,
	count_answers,
	count_negative,
	count_asked,
	count_truncated,
	count_malformed,
	count_refused,
	count_dropped,
	count_overload,
	count_tcp,
	count_nxdomain,
	counters,
};

struct row {
	struct row *next;
	uint64_t hash;
	uint16_t type;
	uint16_t name_size;
	uint16_t body_size;
	uint16_t answers, authorities, additionals;
	uint8_t rcode, flags;
	/* The name, then what follows the question in the answer. */
	uint8_t bytes[];
};

struct ask {
	uint32_t socket;
	uint32_t size;
	uint32_t address_size;
	struct sockaddr_in6 address;
	uint8_t query[query_max];
};

struct server {
	struct weft_names *names;
	int fd;
	uint32_t number;
	pthread_t thread;
	struct mmsghdr in[batch], out[batch];
	struct iovec in_data[batch], out_data[batch];
	struct sockaddr_in6 from[batch];
	uint8_t queries[batch][query_max];
	uint8_t answers[batch][answer_max];
};

struct weft_names {
	pthread_rwlock_t lock; /* of the rows */
	struct row **buckets;
	uint32_t bucket_count, row_count;
	uint64_t seed;

	pthread_mutex_t queue_lock;
	struct ask *asks;
	uint32_t first, waiting;
	int bell[2];

	struct server *servers[sockets_max];
	uint32_t server_count;
	int stopping;
	uint64_t *counts; /* may be shared with who looks on */
	int has_owner;
	uint32_t turn;
};

struct question {
	uint8_t name[name_max]; /* lower case */
	uint32_t name_size;
	uint16_t type, class;
	uint32_t end; /* of the question in the query */
	int has_opt, dnssec_ok, version;
	uint32_t limit;
};

static inline void count(struct weft_names *names, enum counter what)
{
	__atomic_fetch_add(&names->counts[what], 1, __ATOMIC_RELAXED);
}

static inline uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static inline void put16(uint8_t *p, uint32_t value)
{
	p[0] = value >> 8;
	p[1] = value;
}

/* FNV-1a with a seed that nobody outside knows. */
static inline uint64_t hash_of(uint64_t seed, const uint8_t *name, uint32_t size, uint16_t type)
{
	uint64_t h = seed ^ 0xcbf29ce484222325ull;

	for (uint32_t i = 0; i < size; i++)
		h = (h ^ name[i]) * 0x100000001b3ull;
	h = (h ^ type) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

static inline struct row **place_of(const struct weft_names *names, const uint8_t *name, uint32_t size, uint16_t type)
{
	uint64_t hash = hash_of(names->seed, name, size, type);
	struct row **at = &names->buckets[hash & (names->bucket_count - 1)];

	while (*at && ((*at)->hash != hash || (*at)->type != type || (*at)->name_size != size ||
		       memcmp((*at)->bytes, name, size)))
		at = &(*at)->next;
	return at;
}

/* Returns 0, or the code to refuse with. */
int weft_names_parse(const uint8_t *query, uint32_t size, struct question *q);
/* An answer without records. Returns its size. */
uint32_t weft_names_refuse(uint8_t *out, const uint8_t *query, const struct question *q, int rcode);
/*
 * Returns the size of the answer, 0 where the owner has to be asked, -1 where there is to be none. `limit`: of an answer
 * over this transport; 0 for UDP, where the question says. `out` has room for that, or for answer_max. Under the lock.
 */
int weft_names_answer_locked(struct weft_names *names, const uint8_t *query, uint32_t size, uint32_t limit, uint8_t *out);

#endif
