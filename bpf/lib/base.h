/* What every program includes: kernel types, helpers, and the few words that newer kernels have and these headers lack. */
#ifndef WEFT_LIB_BASE_H
#define WEFT_LIB_BASE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/fault.h"

#define INLINE static __always_inline
/*
 * Verified once by itself, whatever its callers know: what would be looked at again for every path that leads there. Its
 * pointers may be null, as the verifier sees it, and are asked first.
 */
#define FUNCTION __attribute__((noinline))

/* The headers of Debian 12 are of Linux 6.1; the floor is 6.8. */
#define WEFT_FIB_LOOKUP_SKIP_NEIGH (1U << 2) /* 6.3 */
#define WEFT_DECAP_IPV4 (1ULL << 7)	     /* 6.3 */
#define WEFT_DECAP_IPV6 (1ULL << 8)

#define AF_INET 2
#define AF_INET6 10

char LICENSE[] SEC("license") = "GPL";

#endif
