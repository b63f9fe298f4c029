/* What a step says, and the one way out of a program. */
#ifndef WEFT_LIB_VERDICT_H
#define WEFT_LIB_VERDICT_H

#include "lib/base.h"
#include "maps/counters.h"

/* Steps return CONTINUE, a TC_ACT_ to end with, or drop(reason). */
#define CONTINUE (-1000)

INLINE int drop(enum reason reason)
{
	return -(int)reason;
}

/* The only exit: counts, and turns a drop reason into TC_ACT_SHOT. */
INLINE int leave(struct __sk_buff *skb, int verdict, enum direction direction)
{
	__u32 reason = verdict < 0 ? -verdict : REASON_FORWARDED;
	__u32 index = reason * DIRECTION_MAX + direction;
	struct counter *counter = bpf_map_lookup_elem(&counters_v2, &index);

	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
	return verdict < 0 ? TC_ACT_SHOT : verdict;
}

#endif
