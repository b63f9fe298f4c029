/* A connection that comes to this node's stack and has no socket yet. Attached to the node's network namespace. */
#include "lib/base.h"

#include "maps/listeners.h"

INLINE void fill(struct listener *key, const struct bpf_sk_lookup *ctx)
{
	/* Read before the families part: clang would join the arms behind a computed offset, which the verifier refuses. */
	const __u32 ip4 = *(const volatile __u32 *)&ctx->local_ip4;

	key->port = ctx->local_port;
	key->protocol = ctx->protocol;
	if (ctx->family == AF_INET) {
		key->address.word[2] = bpf_htonl(0xffff);
		key->address.word[3] = ip4;
		return;
	}
	key->address.word[0] = ctx->local_ip6[0];
	key->address.word[1] = ctx->local_ip6[1];
	key->address.word[2] = ctx->local_ip6[2];
	key->address.word[3] = ctx->local_ip6[3];
}

/*
 * To the engine's socket where a Gateway listens at this address and port; to the usual look-up otherwise. A Gateway
 * without its engine is refused, not given to whoever happens to listen on every address.
 */
SEC("sk_lookup")
int gateway_lookup(struct bpf_sk_lookup *ctx)
{
	struct listener key = {};
	struct bpf_sock *sk;
	const __u32 *slot;
	long error;

	fill(&key, ctx);
	slot = bpf_map_lookup_elem(&listeners_v1, &key);
	if (!slot)
		return SK_PASS;
	sk = bpf_map_lookup_elem(&listener_sockets_v1, slot);
	if (!sk)
		return SK_DROP;
	error = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);

	return error ? SK_DROP : SK_PASS;
}
