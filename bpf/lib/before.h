/*
 * Connections as the version before this one knew them, where its layout was another one. Links change one by one: for a
 * moment its programs and these share the same connections. What is not found in our own map is looked for in its map and
 * taken over, member by member; what begins here is told there, too. The agent then takes over all the rest, and
 * loads these programs once more without any of this (src/datapath/carry.ts).
 */
#ifndef WEFT_LIB_BEFORE_H
#define WEFT_LIB_BEFORE_H

#include "lib/tuple.h"
#include "maps/before.h"
#include "maps/flows.h"
#include "maps/translations.h"

/* `places` is constant when this is verified. */
INLINE void move_members(__u8 *to, const __u8 *from, const volatile __u8 *places, __u32 size)
{
	__u32 i;

#pragma clang loop unroll(disable) vectorize(disable)
	for (i = 0; i < size; i++) {
		__u32 place = places[i];

		to[i] = place == BEFORE_NOWHERE ? 0 : from[place];
	}
}

INLINE void *before_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch_before, &zero);
}

/* 1: taken. Whoever asked looks again in any case: another CPU, or the agent, may have been first. */
FUNCTION int take_flow(const struct tuple *key)
{
	struct flow *flow = before_work();
	__u32 counted, *share;
	const __u8 *old;

	if (!cfg_flow_before || !key || !flow)
		return 0;
	old = bpf_map_lookup_elem(&before_flows, key);
	if (!old)
		return 0;
	move_members((__u8 *)flow, old, cfg_flow_from, sizeof(*flow));
	if (bpf_map_update_elem(&flows_v1, key, flow, BPF_NOEXIST))
		return 0;
	/* As lib/flow.h counts them, where the counts began anew. */
	counted = flow->flags & FLOW_ANSWERED ? flow->number : 0;
	if (!cfg_shares_anew || (!counted && (flow->flags & FLOW_ANSWERED)))
		return 1;
	share = bpf_map_lookup_elem(&shares_v1, &counted);
	if (share)
		__sync_fetch_and_add(share, 1);
	return 1;
}

/* A flow has begun: programs of before will see its packets, too. */
FUNCTION int leave_flow(const struct tuple *key, const struct flow *flow)
{
	__u8 *made = before_work();

	if (!cfg_flow_before || !key || !flow || !made)
		return 0;
	move_members(made, (const __u8 *)flow, cfg_flow_back, cfg_flow_before);
	return bpf_map_update_elem(&before_flows, key, made, BPF_NOEXIST);
}

INLINE void forget_left_flow(const struct tuple *key)
{
	if (cfg_flow_before)
		bpf_map_delete_elem(&before_flows, key);
}

/*
 * An entry as it was left, in before_work(). For one packet that is enough: the kernel has no memory for another element at every
 * moment, and there is no sender who should hear of that.
 */
FUNCTION int recall_rewrite(const struct tuple *key)
{
	struct rewrite *r = before_work();
	const __u8 *old;

	if (!cfg_rewrite_before || !key || !r)
		return 0;
	old = bpf_map_lookup_elem(&before_pairs, key);
	if (!old)
		return 0;
	move_members((__u8 *)r, old, cfg_rewrite_from, sizeof(*r));
	return 1;
}

/* 1: taken. */
FUNCTION int take_rewrite(const struct tuple *key)
{
	struct rewrite *r = before_work();

	if (!key || !r || !recall_rewrite(key))
		return 0;
	return !bpf_map_update_elem(&translations_v1, key, r, BPF_NOEXIST);
}

/* The packet's entry, and the other one of its pair. */
FUNCTION int take_pair(const struct tuple *key)
{
	const struct rewrite *r;
	struct tuple other;

	if (!cfg_rewrite_before || !key)
		return 0;
	take_rewrite(key);
	r = bpf_map_lookup_elem(&translations_v1, key);
	if (!r)
		return 0;
	turn_round(&r->to, &other);
	take_rewrite(&other);
	return 0;
}

/* A pair has been written: its packets may meet programs of before, which must not give its port to another either. */
FUNCTION int leave_rewrite(const struct tuple *key, const struct rewrite *r)
{
	__u8 *made = before_work();

	if (!cfg_rewrite_before || !key || !r || !made)
		return 0;
	move_members(made, (const __u8 *)r, cfg_rewrite_back, cfg_rewrite_before);
	return bpf_map_update_elem(&before_pairs, key, made, BPF_ANY);
}

INLINE void forget_left_pair(const struct tuple *question, const struct tuple *answer)
{
	if (!cfg_rewrite_before)
		return;
	bpf_map_delete_elem(&before_pairs, question);
	bpf_map_delete_elem(&before_pairs, answer);
}

#endif
