/* Time and chance, which a probe takes from elsewhere. */
#ifndef WEFT_LIB_CLOCK_H
#define WEFT_LIB_CLOCK_H

#include "config.h"
#include "lib/base.h"

#define SECOND 1000000000ULL

/* ns, CLOCK_MONOTONIC; no finer than the kernel's tick, which is fine for time-outs and costs a third. */
INLINE __u64 now(const struct __sk_buff *skb)
{
	if (cfg_probe == PROBE_MODEL)
		return skb->tstamp;
	return bpf_ktime_get_coarse_ns();
}

/* Maps may be written. */
INLINE int may_write(void)
{
	return cfg_probe != PROBE_WHY;
}

#endif
