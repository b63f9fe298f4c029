/* Who talks to whom. A flow's key: after a Service's address was exchanged, before a source is masqueraded. */
#ifndef WEFT_ABI_TUPLE_H
#define WEFT_ABI_TUPLE_H

#include "abi/address.h"

struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port; /* ICMP echo: its identifier, on the asker's side, 0 on the other; without ports: 0 */
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

#endif
