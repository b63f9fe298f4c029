/*
 * Takes away pairs of translations that nobody has used for as long as their connection may be silent, and those to backends
 * that are gone. Run by the agent every few seconds and when a backend goes, off the packets' way.
 */
#include "lib/base.h"
#include "lib/clock.h"
#include "lib/address.h"
#include "lib/before.h"
#include "lib/life.h"
#include "lib/tuple.h"
#include "maps/translations.h"

/* What the agent asks for, and what it is told. */
struct translation_sweep {
	__u32 now;   /* s, CLOCK_MONOTONIC; 0: the kernel's own */
	__u32 stale; /* stale_v1 has entries */
	__u32 kept;
	__u32 removed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} scratch_pairs SEC(".maps");

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

INLINE __u32 life_of(__u8 protocol, const struct rewrite *question, const struct rewrite *answer)
{
	if (((question->flags | answer->flags) & REWRITE_RESET) || (question->flags & answer->flags & REWRITE_FIN))
		return SECONDS_CLOSING;
	if (!(answer->flags & REWRITE_ANSWERED))
		return SECONDS_UNANSWERED;
	if (protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP)
		return SECONDS_TCP;
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? SECONDS_ICMP : SECONDS_UDP;
}

INLINE int is_stale(const struct rewrite *r)
{
	struct stale_key key = {};

	key.backend = r->to.destination;
	key.port = r->to.destination_port;
	key.protocol = r->to.protocol;
	if (bpf_map_lookup_elem(&stale_v1, &key))
		return 1;
	key.service = r->service;
	return bpf_map_lookup_elem(&stale_v1, &key) != 0;
}

INLINE void count_pair(const struct tuple *question)
{
	const struct endpoint *pod = bpf_map_lookup_elem(&endpoints_v2, &question->source);
	__u32 number = pod ? pod->number : 0, *count = bpf_map_lookup_elem(&scratch_pairs, &number);

	if (count)
		++*count;
}

static long count_none(void *map, const __u32 *number, __u32 *count, void *unused)
{
	*count = 0;
	return 0;
}

/* What has begun meanwhile is not counted, if at all, before the next sweep. */
static long tell_count(void *map, const __u32 *number, __u32 *count, void *unused)
{
	__u32 key = *number;
	const __u32 *now = bpf_map_lookup_elem(&scratch_pairs, &key);

	if (now && *count != *now)
		*count = *now;
	return 0;
}

static long sweep_pair(void *map, const struct tuple *key, struct rewrite *r, struct translation_sweep *s)
{
	struct tuple other, own = *key;
	struct rewrite *answer;
	__u32 seen = r->seen;

	turn_round(&r->to, &other);
	if (r->flags & REWRITE_ANSWER) {
		/* The question's entry decides. Half a pair: it is being written, or its other half was lost. */
		if (!bpf_map_lookup_elem(&translations_v1, &other) && (__s32)(s->now - seen) > SECONDS_CLOSING)
			bpf_map_delete_elem(&translations_v1, &own);
		return 0;
	}
	answer = bpf_map_lookup_elem(&translations_v1, &other);
	if (answer && (__s32)(answer->seen - seen) > 0)
		seen = answer->seen;
	if (answer && (__s32)(s->now - seen) <= (__s32)life_of(own.protocol, r, answer) && !(s->stale && is_stale(r))) {
		s->kept++;
		if (!s->stale)
			count_pair(&own);
		return 0;
	}
	bpf_map_delete_elem(&translations_v1, &own);
	bpf_map_delete_elem(&translations_v1, &other);
	s->removed++;
	return 0;
}

SEC("syscall")
int sweep_translations(struct translation_sweep *ctx)
{
	struct translation_sweep s = { .now = ctx->now, .stale = ctx->stale };

	if (!s.now)
		s.now = clock_ns() / SECOND;
	/* A sweep for a backend that goes may run beside the one that comes every few seconds: that one counts. */
	if (!s.stale)
		bpf_for_each_map_elem(&scratch_pairs, count_none, 0, 0);
	bpf_for_each_map_elem(&translations_v1, sweep_pair, &s, 0);
	if (!s.stale)
		bpf_for_each_map_elem(&pairs_v1, tell_count, 0, 0);
	ctx->kept = s.kept;
	ctx->removed = s.removed;
	return 0;
}

/* As in sweep.bpf.c. */
struct taking {
	__u32 taken;
	__u32 known;
	__u32 left;
	__u32 pad;
};

static long take_left_rewrite(void *map, const struct tuple *key, void *old, struct taking *t)
{
	struct tuple copy = *key;

	if (take_rewrite(&copy)) {
		t->taken++;
	} else if (bpf_map_lookup_elem(&translations_v1, &copy)) {
		t->known++;
	} else {
		/* The kernel had no memory for it at this moment. */
		t->left++;
		return 0;
	}
	bpf_map_delete_elem(&before_pairs, &copy);
	return 0;
}

/* Entry by entry: the other one of each pair is among them. */
SEC("syscall")
int take_translations(struct taking *ctx)
{
	struct taking t = {};

	if (cfg_rewrite_before)
		bpf_for_each_map_elem(&before_pairs, take_left_rewrite, &t, 0);
	ctx->taken = t.taken;
	ctx->known = t.known;
	ctx->left = t.left;
	return 0;
}
