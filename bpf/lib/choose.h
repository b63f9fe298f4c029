/* Which backend a new connection gets, for tc and XDP alike. */
#ifndef WEFT_LIB_CHOOSE_H
#define WEFT_LIB_CHOOSE_H

#include "lib/lb.h"
#include "lib/nat.h"

/* 0 where the node has no address of the family. */
INLINE int node_address(struct address *out, int v4)
{
	const volatile struct address *own = v4 ? &cfg_node_address4 : &cfg_node_address6;

	out->word[0] = own->word[0];
	out->word[1] = own->word[1];
	out->word[2] = own->word[2];
	out->word[3] = own->word[3];
	return out->word[3] != 0;
}

/* Protocols whose packets say to which port they want. */
INLINE int asks_for_port(const struct packet *pkt)
{
	return pkt->flags & PACKET_PORTS;
}

/* The first packet of a connection that is to be translated; any other of TCP and SCTP comes too late, or too early. */
INLINE int may_begin(const struct packet *pkt)
{
	if (pkt->flags & PACKET_LATER_FRAGMENT)
		return 0;
	if (pkt->tuple.protocol == IPPROTO_TCP)
		return is_bare_syn(pkt);
	if (pkt->tuple.protocol == IPPROTO_SCTP)
		return pkt->tcp_flags == SCTP_INIT;
	return 1;
}

INLINE int refusal_of(enum lb_result result)
{
	switch (result) {
	case LB_SILENT:
		return drop(REASON_NO_LOCAL_BACKEND);
	case LB_FORBIDDEN:
		return drop(REASON_SOURCE_RANGE);
	default:
		return drop(REASON_NO_BACKEND);
	}
}

/* The backend of a new connection; `r` then says where its packets go, apart from the source. CONTINUE, FORGOTTEN (no Service), a verdict. */
FUNCTION int choose_backend(CONTEXT *ctx, struct packet *pkt, struct rewrite *r, __u32 side, __u32 flags)
{
	const struct frontend *frontend;
	struct frontend_key key = {};
	struct lb_choice choice = {};
	enum lb_result result;
	__u64 time;

	if (!pkt || !r)
		return drop(REASON_MAP_WRITE_FAILED);
	time = time_of(ctx);
	key.address = pkt->tuple.destination;
	key.port = pkt->tuple.destination_port;
	key.protocol = pkt->tuple.protocol;
	frontend = lb_frontend(&key, flags);
	if (!frontend)
		return FORGOTTEN;
	/* Nothing of a connection that began elsewhere is known: its sender is told so. */
	if (!may_begin(pkt) && !(frontend->flags & FRONTEND_STACK))
		return side == LB_INSIDE && (frontend->flags & FRONTEND_OUTSIDE_ONLY) ? FORGOTTEN
										     : drop(REASON_NO_NAT_MAPPING);
	result = lb_select(frontend, &pkt->tuple.source, key.protocol, side, bpf_get_prandom_u32(), time, may_write(),
			   &choice);
	if (result == LB_NO_SERVICE)
		return FORGOTTEN;
	if (result == LB_STACK)
		return TC_ACT_OK;
	if (result != LB_CHOSEN || !choice.backend)
		return refusal_of(result);
	__builtin_memset(r, 0, sizeof(*r));
	r->to = pkt->tuple;
	r->to.destination = choice.backend->address;
	r->to.destination_port = choice.backend->port;
	r->service = choice.service;
	r->backend = choice.number;
	r->seen = time / SECOND;
	note_beginning(r, pkt);
	pkt->choice = choice.number;
	return CONTINUE;
}

#endif
