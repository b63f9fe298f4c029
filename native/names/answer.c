/* A question is checked and looked up, and the stored answer put behind it with the question's own id, flags and spelling. */
#define _GNU_SOURCE
#include <errno.h>

#include "names.h"

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

int weft_names_parse(const uint8_t *query, uint32_t size, struct question *q)
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

uint32_t weft_names_refuse(uint8_t *out, const uint8_t *query, const struct question *q, int rcode)
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

int weft_names_answer_locked(struct weft_names *names, const uint8_t *query, uint32_t size, uint32_t limit, uint8_t *out)
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
		return weft_names_refuse(out, query, NULL, notimp);
	}
	code = weft_names_parse(query, size, &q);
	if (code) {
		count(names, count_malformed);
		return weft_names_refuse(out, query, NULL, code);
	}
	if (q.has_opt && q.version != 0) {
		count(names, count_refused);
		return weft_names_refuse(out, query, &q, badvers);
	}
	if (q.class != class_in || q.type == type_axfr || q.type == type_ixfr || q.type == any_type || q.type == below) {
		count(names, count_refused);
		return weft_names_refuse(out, query, &q, refused);
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
	result = weft_names_answer_locked(names, query, size, limit, out);
	pthread_rwlock_unlock(&names->lock);
	return result;
}
