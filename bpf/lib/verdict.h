/* What a step says. */
#ifndef WEFT_LIB_VERDICT_H
#define WEFT_LIB_VERDICT_H

#include "abi/drop.h"
#include "lib/base.h"

/* Steps return CONTINUE, a TC_ACT_ to end with, or drop(reason). */
#define CONTINUE (-1000)

INLINE int drop(enum reason reason)
{
	return -(int)reason;
}

#endif
