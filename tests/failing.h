/* Every allocation of the process, whoever makes it, is counted and may be made to fail: for test
 * programs that link this. */
#ifndef FT_TESTS_FAILING_H
#define FT_TESTS_FAILING_H

/* The n-th allocation of this thread from now fails (1: the next); 0: none does. */
void fail_at(long n);
/* Allocations of this thread so far. */
long allocations_made(void);

#endif
