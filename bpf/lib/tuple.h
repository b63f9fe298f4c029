/* The two ends of a connection. */
#ifndef WEFT_LIB_TUPLE_H
#define WEFT_LIB_TUPLE_H

#include "abi/tuple.h"
#include "lib/base.h"

/* As the answer has it. */
INLINE void turn_round(const struct tuple *t, struct tuple *turned)
{
	turned->source = t->destination;
	turned->destination = t->source;
	turned->source_port = t->destination_port;
	turned->destination_port = t->source_port;
	turned->protocol = t->protocol;
	turned->pad[0] = turned->pad[1] = turned->pad[2] = 0;
}

#endif
