/* Addresses as both families' packets, maps and TypeScript see them. */
#ifndef WEFT_ABI_ADDRESS_H
#define WEFT_ABI_ADDRESS_H

#include <linux/types.h>

/* 128 bits, network order; IPv4 as ::ffff:a.b.c.d, so one map and one code path serve both families. */
struct address {
	__be32 word[4];
};

/* Both sides of the comparison are masked already. */
struct network {
	struct address base;
	struct address mask;
};

/* In words: copied with three moves instead of six. */
struct mac {
	__u16 word[3];
};

#endif
