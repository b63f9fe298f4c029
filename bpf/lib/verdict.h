/* What a step says. */
#ifndef WEFT_LIB_VERDICT_H
#define WEFT_LIB_VERDICT_H

#include "abi/drop.h"
#include "lib/base.h"

/* Steps return CONTINUE, a TC_ACT_ to end with, or drop(reason). */
#define CONTINUE (-1000)

/* A step's answer, never a program's: what was found does not count, the packet begins a connection. */
#define FORGOTTEN (-1001)

/* Likewise: whether the packet is the first of its connection has to be looked up. */
#define NOT_SURE (-1002)

INLINE int drop(enum reason reason)
{
	return -(int)reason;
}

#endif
