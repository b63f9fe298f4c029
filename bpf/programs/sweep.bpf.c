/*
 * Takes away flows that are over. Run by the agent every few seconds, off the packets' way: they look at the age of what they
 * find themselves, so that what is swept late is only room that is taken longer.
 */
#include "lib/base.h"
#include "lib/before.h"
#include "lib/clock.h"
#include "maps/flows.h"

/* What the agent asks for, and what it is told. */
struct sweep {
	__u64 now;	/* ns, CLOCK_MONOTONIC; 0: the kernel's own */
	__u32 endpoint; /* all flows that are counted to it, too; 0: no endpoint's */
	__u32 kept;
	__u32 removed;
	__u32 pad;
};

static long sweep_flow(void *map, const struct tuple *key, struct flow *flow, struct sweep *s)
{
	__u32 number = flow->number, counted, *share;
	struct tuple copy;

	/* Signed: a packet may have come in since the time was asked. */
	if ((__s64)(s->now - flow->seen) <= (__s64)flow->timeout && !(s->endpoint && s->endpoint == number)) {
		s->kept++;
		return 0;
	}
	copy = *key;
	/* As lib/flow.h counts them. */
	counted = flow->flags & FLOW_ANSWERED ? number : 0;
	share = counted || !(flow->flags & FLOW_ANSWERED) ? bpf_map_lookup_elem(&shares_v1, &counted) : 0;
	if (bpf_map_delete_elem(&flows_v1, &copy))
		return 0;
	s->removed++;
	if (share)
		__sync_fetch_and_sub(share, 1);
	return 0;
}

SEC("syscall")
int sweep(struct sweep *ctx)
{
	struct sweep s = { .now = ctx->now, .endpoint = ctx->endpoint };

	if (!s.now)
		s.now = clock_ns();
	bpf_for_each_map_elem(&flows_v1, sweep_flow, &s, 0);
	ctx->kept = s.kept;
	ctx->removed = s.removed;
	return 0;
}

/* What is told of a map of before that has been emptied. */
struct taking {
	__u32 taken;
	__u32 known; /* was here already */
	__u32 left;  /* found no room now, and is still there */
	__u32 pad;
};

static long take_left_flow(void *map, const struct tuple *key, void *old, struct taking *t)
{
	struct tuple copy = *key;

	if (take_flow(&copy)) {
		t->taken++;
	} else if (bpf_map_lookup_elem(&flows_v1, &copy)) {
		t->known++;
	} else {
		t->left++;
		return 0;
	}
	forget_left_flow(&copy);
	return 0;
}

/* After the last link has moved on to these programs. */
SEC("syscall")
int take_flows(struct taking *ctx)
{
	struct taking t = {};

	if (cfg_flow_before)
		bpf_for_each_map_elem(&before_flows, take_left_flow, &t, 0);
	ctx->taken = t.taken;
	ctx->known = t.known;
	ctx->left = t.left;
	return 0;
}
