/* Addresses: made from packets and sockets, compared. */
#ifndef WEFT_LIB_ADDRESS_H
#define WEFT_LIB_ADDRESS_H

#include "abi/address.h"
#include "lib/base.h"

#define V4_MAPPED bpf_htonl(0xffff)

INLINE void address_from4(struct address *a, __be32 v4)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = V4_MAPPED;
	a->word[3] = v4;
}

INLINE void address_from6(struct address *a, const struct in6_addr *v6)
{
	a->word[0] = v6->in6_u.u6_addr32[0];
	a->word[1] = v6->in6_u.u6_addr32[1];
	a->word[2] = v6->in6_u.u6_addr32[2];
	a->word[3] = v6->in6_u.u6_addr32[3];
}

/* IPv4, as addresses have it here. */
INLINE int is_mapped(const struct address *a)
{
	return a->word[2] == V4_MAPPED && !a->word[0] && !a->word[1];
}

INLINE int address_equal(const struct address *a, const struct address *b)
{
	return a->word[3] == b->word[3] && a->word[2] == b->word[2] && a->word[1] == b->word[1] &&
	       a->word[0] == b->word[0];
}

/* Nothing is in an empty network (no Services of that family): its mask is 0, which would otherwise contain everything. */
INLINE int network_contains(const volatile struct network *n, const struct address *a)
{
	if (n->mask.word[0] == 0)
		return 0;
	return (a->word[0] & n->mask.word[0]) == n->base.word[0] && (a->word[1] & n->mask.word[1]) == n->base.word[1] &&
	       (a->word[2] & n->mask.word[2]) == n->base.word[2] && (a->word[3] & n->mask.word[3]) == n->base.word[3];
}

/* `to` is six bytes at an even address: in a packet, whose frame begins at one, or in a map. */
INLINE void copy_mac(void *to, const volatile struct mac *from)
{
	__u16 *word = to;

	word[0] = from->word[0];
	word[1] = from->word[1];
	word[2] = from->word[2];
}

/* `at`: as above. */
INLINE int is_mac(const void *at, const volatile struct mac *mac)
{
	const __u16 *word = at;

	return word[0] == mac->word[0] && word[1] == mac->word[1] && word[2] == mac->word[2];
}

#endif
