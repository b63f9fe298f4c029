/* Seeded faults, for test/model alone: -DFAULT=n puts one in, and the model has to find it. */
#ifndef WEFT_LIB_FAULT_H
#define WEFT_LIB_FAULT_H

#ifndef FAULT
#define FAULT 0
#endif

#define FAULTY(n, wrong, right) (FAULT == (n) ? (wrong) : (right))

#endif
