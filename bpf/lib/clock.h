/* Time and chance, which a probe takes from elsewhere. */
#ifndef WEFT_LIB_CLOCK_H
#define WEFT_LIB_CLOCK_H

#include "config.h"
#include "lib/base.h"

#define SECOND 1000000000ULL

/*
 * ns, CLOCK_MONOTONIC to within a tick or so (L7: everything that is compared with another time comes from here). Counting
 * ticks is one load; asking the kernel for the time, even for its coarse one, is 18 ns of the 170 that a packet has.
 */
INLINE __u64 clock_ns(void)
{
	if (cfg_tick_ns)
		return (bpf_jiffies64() - cfg_first_tick) * cfg_tick_ns;
	return bpf_ktime_get_ns();
}

INLINE __u64 now(const struct __sk_buff *skb)
{
	if (cfg_probe == PROBE_MODEL)
		return skb->tstamp;
	return clock_ns();
}

/*
 * Has nothing been seen for longer than `life`? Signed: between this processor's look at the clock and its look at `seen`
 * another one may have had a packet, and the clock its next tick; what was seen just now must not be 500 years old.
 */
INLINE int is_older(__u64 time, __u64 seen, __u64 life)
{
	return (__s64)(time - seen) > (__s64)life;
}

/* Maps may be written. */
INLINE int may_write(void)
{
	return cfg_probe != PROBE_WHY;
}

#endif
