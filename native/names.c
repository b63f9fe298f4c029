/*
 * A table of DNS answers and the threads that serve it: src/kernel/names.ts. What the answers are is decided outside; here
 * a question is checked, looked up, and the stored answer sent with the question's own id, flags and spelling. What the
 * table does not answer is queued for the owner, who takes it, and sends when it knows.
 *
 * A row belongs to a name (wire form, lower case) and a type. Two types have a meaning of their own: `any_type` is for
 * every type that the name has no row for, `below` for every name that is not there below this one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim.h"

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

static void count(struct weft_names *names, enum counter what)
{
	__atomic_fetch_add(&names->counts[what], 1, __ATOMIC_RELAXED);
}

static uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = value >> 8;
	p[1] = value;
}

/* FNV-1a with a seed that nobody outside knows. */
static uint64_t hash_of(uint64_t seed, const uint8_t *name, uint32_t size, uint16_t type)
{
	uint64_t h = seed ^ 0xcbf29ce484222325ull;

	for (uint32_t i = 0; i < size; i++)
		h = (h ^ name[i]) * 0x100000001b3ull;
	h = (h ^ type) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

static struct row **place_of(const struct weft_names *names, const uint8_t *name, uint32_t size, uint16_t type)
{
	uint64_t hash = hash_of(names->seed, name, size, type);
	struct row **at = &names->buckets[hash & (names->bucket_count - 1)];

	while (*at && ((*at)->hash != hash || (*at)->type != type || (*at)->name_size != size ||
		       memcmp((*at)->bytes, name, size)))
		at = &(*at)->next;
	return at;
}

/* ---- the table ---- */

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

/* ---- a question ---- */

/* Skips a name that may end in a pointer. Returns the offset after it, or 0. */
static uint32_t skip_name(const uint8_t *message, uint32_t at, uint32_t size)
{
	while (at < size) {
		uint8_t length = message[at];

		if (length == 0)
			return at + 1;
		if (length >= 0xc0)
			return at + 2 <= size ? at + 2 : 0;
		if (length > label_max)
			return 0;
		at += 1 + length;
	}
	return 0;
}

/* Returns 0, or the code to refuse with. */
static int parse_question(const uint8_t *query, uint32_t size, struct question *q)
{
	uint32_t at = header_size, records;

	/* One question, and nothing that belongs into an answer. */
	if (get16(query + 4) != 1 || get16(query + 6) != 0 || get16(query + 8) != 0)
		return formerr;
	for (;;) {
		uint8_t length;

		if (at >= size || query[at] > label_max)
			return formerr;
		length = query[at];
		if (q->name_size + 1 + length > name_max || at + 1 + length > size)
			return formerr;
		q->name[q->name_size++] = length;
		at++;
		for (uint8_t i = 0; i < length; i++, at++)
			q->name[q->name_size++] = query[at] >= 'A' && query[at] <= 'Z' ? query[at] | 0x20 : query[at];
		if (length == 0)
			break;
	}
	if (at + 4 > size)
		return formerr;
	q->type = get16(query + at);
	q->class = get16(query + at + 2);
	q->end = at + 4;

	at = q->end;
	for (records = get16(query + 10); records > 0; records--) {
		uint32_t start = at, data;

		at = skip_name(query, at, size);
		if (at == 0 || at + 10 > size)
			return formerr;
		data = get16(query + at + 8);
		if (at + 10 + data > size)
			return formerr;
		if (get16(query + at) == type_opt) {
			if (q->has_opt || query[start] != 0)
				return formerr;
			q->has_opt = 1;
			q->limit = get16(query + at + 2);
			q->version = query[at + 5];
			q->dnssec_ok = query[at + 6] >> 7;
		}
		at += 10 + data;
	}
	/* What follows the last record belongs to nothing. */
	return at == size ? 0 : formerr;
}

static const struct row *find(const struct weft_names *names, const struct question *q, uint32_t *cut)
{
	const struct row *row = *place_of(names, q->name, q->name_size, q->type);

	*cut = 0;
	if (!row)
		row = *place_of(names, q->name, q->name_size, any_type);
	for (uint32_t at = 0; !row && q->name[at];) {
		at += 1 + q->name[at];
		*cut = at;
		row = *place_of(names, q->name + at, q->name_size - at, below);
	}
	return row;
}

/* ---- an answer ---- */

static uint32_t put_opt(uint8_t *out, const struct question *q, int rcode)
{
	static const uint8_t empty[opt_size] = { 0, 0, type_opt, edns_limit >> 8, edns_limit & 0xff };

	memcpy(out, empty, opt_size);
	out[5] = rcode >> 4;
	out[7] = q->dnssec_ok << 7;
	return opt_size;
}

/* Header, and the question where there is one. */
static uint32_t begin(uint8_t *out, const uint8_t *query, const struct question *q, int rcode, int authoritative)
{
	uint32_t size = q && q->end ? q->end : header_size;

	memcpy(out, query, size);
	/* QR, the opcode as asked, AA, RD as asked; RA, CD as asked. */
	out[2] = 0x80 | (query[2] & 0x79) | (authoritative ? 4 : 0);
	out[3] = 0x80 | (query[3] & 0x10) | (rcode & 15);
	memset(out + 4, 0, 8);
	out[5] = size > header_size;
	return size;
}

static uint32_t refuse(uint8_t *out, const uint8_t *query, const struct question *q, int rcode)
{
	uint32_t size = begin(out, query, q, rcode, 0);

	if (q && q->has_opt) {
		size += put_opt(out + size, q, rcode);
		out[11] = 1;
	}
	return size;
}

/* How many of the first `records` fit into `room`, and how many bytes they are. */
static uint32_t fitting(const uint8_t *body, uint32_t size, uint32_t records, uint32_t room, uint32_t *used)
{
	uint32_t at = 0, n = 0;

	for (*used = 0; n < records; n++) {
		uint32_t next = skip_name(body, at, size);

		if (next == 0 || next + 10 > size)
			break;
		next += 10 + get16(body + next + 8);
		if (next > size || next > room)
			break;
		at = *used = next;
	}
	return n;
}

static uint32_t answer_from(struct weft_names *names, const struct row *row, const uint8_t *query,
			    const struct question *q, uint32_t cut, uint32_t limit, uint8_t *out)
{
	const uint8_t *body = row->bytes + row->name_size;
	uint32_t opt = q->has_opt ? opt_size : 0, used = row->body_size;
	uint32_t answers = row->answers, authorities = row->authorities, additionals = row->additionals;
	uint32_t size = begin(out, query, q, row->rcode, 1), room = limit - size - opt;

	if (used > room) {
		/* First what is only help goes, then whole records, and the asker is told to come by TCP. */
		additionals = 0;
		if (authorities > 0 || fitting(body, row->body_size, answers, room, &used) < answers) {
			authorities = 0;
			answers = fitting(body, row->body_size, answers, room, &used);
			out[2] |= 2;
			count(names, count_truncated);
		}
	}
	memcpy(out + size, body, used);
	if (row->flags & flag_rotate && answers > 1) {
		/* Records of one size: another one is first each time. */
		uint32_t one = used / answers;
		uint32_t turned = __atomic_fetch_add(&names->turn, 1, __ATOMIC_RELAXED) % answers * one;

		memcpy(out + size, body + turned, used - turned);
		memcpy(out + size + used - turned, body, turned);
	}
	/* An answer for all that is below a name starts with that name, which is part of the question. */
	if (row->type == below && used >= 2)
		put16(out + size, 0xc000 | (header_size + cut));
	size += used;
	if (opt)
		size += put_opt(out + size, q, row->rcode);
	put16(out + 6, answers);
	put16(out + 8, authorities);
	put16(out + 10, additionals + (opt ? 1 : 0));
	return size;
}

/*
 * Returns the size of the answer, 0 where the owner has to be asked, -1 where there is to be none. `limit`: of an answer
 * over this transport; 0 for UDP, where the question says. `out` has room for that, or for answer_max.
 */
static int answer(struct weft_names *names, const uint8_t *query, uint32_t size, uint32_t limit, uint8_t *out)
{
	struct question q = {};
	const struct row *row;
	uint32_t cut;
	int code;

	count(names, count_queries);
	/* An answer to an answer may go on for ever. */
	if (size < header_size || query[2] & 0x80) {
		count(names, count_dropped);
		return -1;
	}
	if ((query[2] >> 3 & 15) != 0) {
		count(names, count_refused);
		return refuse(out, query, NULL, notimp);
	}
	code = parse_question(query, size, &q);
	if (code) {
		count(names, count_malformed);
		return refuse(out, query, NULL, code);
	}
	if (q.has_opt && q.version != 0) {
		count(names, count_refused);
		return refuse(out, query, &q, badvers);
	}
	if (q.class != class_in || q.type == type_axfr || q.type == type_ixfr || q.type == any_type || q.type == below) {
		count(names, count_refused);
		return refuse(out, query, &q, refused);
	}
	if (limit == 0)
		limit = !q.has_opt || q.limit < plain_limit ? plain_limit : q.limit > edns_limit ? edns_limit : q.limit;
	row = q.type == type_all ? NULL : find(names, &q, &cut);
	if (!row || row->flags & flag_ask) {
		count(names, count_asked);
		return 0;
	}
	count(names, row->answers > 0 ? count_answers : row->rcode == nxdomain ? count_nxdomain : count_negative);
	return answer_from(names, row, query, &q, cut, limit, out);
}

int weft_names_answer(struct weft_names *names, const void *query, uint32_t size, uint32_t limit, void *out,
		      uint32_t room)
{
	int result;

	if (size > 0xffff || room < (limit == 0 ? answer_max : limit) || room < header_size + name_max + 4 + opt_size)
		return -EINVAL;
	if (limit != 0)
		count(names, count_tcp);
	pthread_rwlock_rdlock(&names->lock);
	result = answer(names, query, size, limit, out);
	pthread_rwlock_unlock(&names->lock);
	return result;
}

/* ---- threads ---- */

/* Returns 0 where there is no room. */
static int put_ask(struct weft_names *names, const struct server *server, const uint8_t *query, uint32_t size,
		   const struct mmsghdr *message)
{
	int put = 0;

	if (!__atomic_load_n(&names->has_owner, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&names->queue_lock);
	if (names->waiting < asks_max) {
		struct ask *ask = &names->asks[(names->first + names->waiting++) % asks_max];

		ask->socket = server->number;
		ask->size = size;
		ask->address_size = message->msg_hdr.msg_namelen;
		memcpy(&ask->address, message->msg_hdr.msg_name, message->msg_hdr.msg_namelen);
		memcpy(ask->query, query, size);
		put = 1;
	}
	pthread_mutex_unlock(&names->queue_lock);
	/* A bell that is full rings already. */
	if (put && send(names->bell[1], "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		put = errno == EAGAIN;
	return put;
}

static uint32_t answer_batch(struct weft_names *names, struct server *server, uint32_t n)
{
	uint32_t out = 0;

	pthread_rwlock_rdlock(&names->lock);
	for (uint32_t i = 0; i < n; i++) {
		const struct mmsghdr *in = &server->in[i];
		int size;

		if (in->msg_hdr.msg_flags & MSG_TRUNC) {
			count(names, count_queries);
			count(names, count_dropped);
			continue;
		}
		size = answer(names, server->queries[i], in->msg_len, 0, server->answers[out]);
		if (size == 0 && !put_ask(names, server, server->queries[i], in->msg_len, in)) {
			struct question q = {};

			count(names, count_overload);
			parse_question(server->queries[i], in->msg_len, &q);
			size = refuse(server->answers[out], server->queries[i], &q, servfail);
		}
		if (size <= 0)
			continue;
		server->out_data[out] = (struct iovec){ server->answers[out], size };
		server->out[out].msg_hdr = (struct msghdr){
			.msg_name = in->msg_hdr.msg_name,
			.msg_namelen = in->msg_hdr.msg_namelen,
			.msg_iov = &server->out_data[out],
			.msg_iovlen = 1,
		};
		out++;
	}
	pthread_rwlock_unlock(&names->lock);
	return out;
}

static void *serve(void *argument)
{
	struct server *server = argument;
	struct weft_names *names = server->names;

	while (!__atomic_load_n(&names->stopping, __ATOMIC_ACQUIRE)) {
		int n;

		for (int i = 0; i < batch; i++) {
			server->in_data[i] = (struct iovec){ server->queries[i], query_max };
			server->in[i].msg_hdr = (struct msghdr){
				.msg_name = &server->from[i],
				.msg_namelen = sizeof(server->from[i]),
				.msg_iov = &server->in_data[i],
				.msg_iovlen = 1,
			};
		}
		/* Waits for one, takes what else is there. Errors are those of earlier answers (ICMP); the end is `stopping`. */
		n = recvmmsg(server->fd, server->in, batch, MSG_WAITFORONE, NULL);
		if (n <= 0 || __atomic_load_n(&names->stopping, __ATOMIC_ACQUIRE))
			continue;
		n = answer_batch(names, server, n);
		for (int sent = 0; sent < n;) {
			int done = sendmmsg(server->fd, server->out + sent, n - sent, MSG_NOSIGNAL);

			/* One that cannot be sent is not waited for. */
			sent += done > 0 ? done : 1;
			if (done <= 0)
				count(names, count_dropped);
		}
	}
	return NULL;
}

int weft_names_serve(struct weft_names *names, int fd)
{
	struct server *server;
	sigset_t all, before;
	int flags = fcntl(fd, F_GETFL), room = 4 << 20, error;

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK))
		return -errno;
	if (names->server_count == sockets_max)
		return -ENOSPC;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	/* A burst waits here while the thread is not on a CPU. Beyond rmem_max only with the privilege. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	server->names = names;
	server->fd = fd;
	server->number = names->server_count;
	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&server->thread, NULL, serve, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		free(server);
		return -error;
	}
	names->servers[names->server_count++] = server;
	return server->number;
}

int weft_names_bell(struct weft_names *names)
{
	int fd = fcntl(names->bell[0], F_DUPFD_CLOEXEC, 0);

	weft_names_own(names, 1);
	return fd < 0 ? -errno : fd;
}

/* socket u32, address size u32, address, then the query. Returns the size of the whole, or 0. */
int weft_names_take(struct weft_names *names, void *out, uint32_t room)
{
	uint8_t *to = out;
	uint32_t size = 0;

	if (room < 8 + sizeof(struct sockaddr_in6) + query_max)
		return -EINVAL;
	pthread_mutex_lock(&names->queue_lock);
	if (names->waiting > 0) {
		const struct ask *ask = &names->asks[names->first];

		memcpy(to, &ask->socket, 4);
		memcpy(to + 4, &ask->address_size, 4);
		memcpy(to + 8, &ask->address, ask->address_size);
		memcpy(to + 8 + ask->address_size, ask->query, ask->size);
		size = 8 + ask->address_size + ask->size;
		names->first = (names->first + 1) % asks_max;
		names->waiting--;
	}
	pthread_mutex_unlock(&names->queue_lock);
	return size;
}

int weft_names_send(struct weft_names *names, uint32_t socket, const void *address, uint32_t address_size,
		    const void *data, uint32_t size)
{
	if (socket >= names->server_count || address_size > sizeof(struct sockaddr_in6))
		return -EINVAL;
	if (sendto(names->servers[socket]->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, address, address_size) < 0)
		return -errno;
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
