/* Is an address one of this node's pods'? Asked twice for every packet, and answered from memory while nothing has changed. */
#ifndef WEFT_LIB_RESIDENT_H
#define WEFT_LIB_RESIDENT_H

#include "lib/packet.h"
#include "maps/endpoints.h"
#include "maps/policy.h"

/* What endpoints_v2 said, and in which epoch: whoever writes there raises it. */
struct remembered {
	struct address address;
	struct endpoint endpoint;
	__u32 epoch;
	__u32 is_known; /* something is remembered here */
	__u32 is_here;	/* `endpoint` is the pod's; 0: the address is nobody's on this node */
	__u32 pad;
};

/* Senders and receivers apart: one must not push the other out while a packet is looked at. */
struct residents {
	struct remembered sender[256];
	struct remembered receiver[256];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct residents);
} scratch_residents SEC(".maps");

enum resident_role { RESIDENT_SENDER, RESIDENT_RECEIVER };

FUNCTION int remember(struct remembered *slot, const struct address *address, __u32 epoch)
{
	const struct endpoint *found;

	if (!slot || !address)
		return 0;
	found = bpf_map_lookup_elem(&endpoints_v2, address);
	slot->address = *address;
	slot->epoch = epoch;
	slot->is_known = 1;
	slot->is_here = !!found;
	if (found)
		slot->endpoint = *found;
	return 0;
}

INLINE struct remembered *slot_of(const struct address *address, enum resident_role role)
{
	struct residents *r;
	__u32 zero = 0, at;

	r = bpf_map_lookup_elem(&scratch_residents, &zero);
	if (!r)
		return 0;
	at = bpf_ntohl(address->word[3]) & 255;
	return role == RESIDENT_SENDER ? &r->sender[at] : &r->receiver[at];
}

INLINE int is_about(const struct remembered *slot, const struct packet *pkt, const struct address *address)
{
	return FAULTY(51, 1, slot->epoch == pkt->epoch) && slot->is_known &&
	       FAULTY(52, 1, address_equal(&slot->address, address));
}

/* Where nobody asks yet. */
INLINE void remember_receiver(const struct address *address, __u32 epoch)
{
	struct remembered *slot = slot_of(address, RESIDENT_RECEIVER);

	if (slot && !(slot->epoch == epoch && slot->is_known && address_equal(&slot->address, address)))
		remember(slot, address, epoch);
}

/* 0: nothing is remembered. `*found`: the pod, null where the address is nobody's here. */
INLINE int recall(const struct packet *pkt, const struct address *address, enum resident_role role,
		  const struct endpoint **found)
{
	const struct remembered *slot = slot_of(address, role);

	if (!slot || !is_about(slot, pkt, address))
		return 0;
	*found = slot->is_here ? &slot->endpoint : 0;
	return 1;
}

INLINE const struct endpoint *resident(const struct packet *pkt, const struct address *address, enum resident_role role)
{
	struct remembered *slot = slot_of(address, role);

	if (!slot)
		return 0;
	if (!is_about(slot, pkt, address))
		remember(slot, address, pkt->epoch);
	return slot->is_here ? &slot->endpoint : 0;
}

#endif
